//! ChaCha20-Poly1305 over batches: our implementation with every vector extension that this CPU
//! supports, compared with `ring`, aws-lc-rs and RustCrypto, which process one packet at a time.
//!
//! All contenders take turns in each round, so that load on the machine affects them equally. Each
//! line shows the time per packet to seal and to open (medians over the rounds), and the speed of
//! both together relative to `ring`: the median ratio, with quartiles in brackets.
//!
//!     cargo bench -p wg-bounce-benches --bench aead [-- [ROUNDS] [CONTENDER] [BATCHxBYTES]]

#![expect(clippy::disallowed_methods, reason = "a bench measures time")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use aws_lc_rs::aead as aws;
use chacha20poly1305::aead::AeadInOut;
use chacha20poly1305::{ChaCha20Poly1305, KeyInit};
use wg_bounce_aead::{Aead, Choice, Key, Open, Seal};

const HEADER_LEN: usize = 16;
const TAG_LEN: usize = 16;
const SECRET: [u8; 32] = [7; 32];

/// Adjacent messages, as in a receive buffer.
struct Messages {
    bytes: Vec<u8>,
    /// Bytes of each message, header and tag included.
    length: usize,
}

impl Messages {
    fn new(count: usize, payload: usize) -> Messages {
        let length = HEADER_LEN + payload + TAG_LEN;
        Messages { bytes: vec![0x5a; count * length], length }
    }

    fn each(&mut self) -> impl Iterator<Item = &mut [u8]> {
        self.bytes.chunks_exact_mut(self.length)
    }
}

trait Contender {
    fn name(&self) -> String;
    fn seal(&mut self, messages: &mut Messages);
    fn open(&mut self, messages: &mut Messages);
}

/// Our implementation, and `ring` through our interface.
struct Batch {
    name: &'static str,
    aead: Aead,
    keys: Vec<Key>,
}

impl Contender for Batch {
    fn name(&self) -> String {
        self.name.to_owned()
    }

    fn seal(&mut self, messages: &mut Messages) {
        let keys = self.keys.iter().cycle();
        let batch = messages.each().zip(keys).zip(0..);
        let mut batch: Vec<Seal<'_>> =
            batch.map(|((message, key), counter)| Seal { key, counter, message }).collect();
        self.aead.seal(&mut batch);
    }

    fn open(&mut self, messages: &mut Messages) {
        let keys = self.keys.iter().cycle();
        let batch = messages.each().zip(keys).zip(0..);
        let open = |((message, key), counter)| Open { key, counter, message, authentic: false };
        let mut batch: Vec<Open<'_>> = batch.map(open).collect();
        self.aead.open(&mut batch);
        assert!(batch.iter().all(|opened| opened.authentic));
    }
}

fn nonce(counter: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_le_bytes());
    nonce
}

struct AwsLc(aws::LessSafeKey);

impl Contender for AwsLc {
    fn name(&self) -> String {
        "aws-lc-rs".to_owned()
    }

    fn seal(&mut self, messages: &mut Messages) {
        for (counter, message) in (0..).zip(messages.each()) {
            let nonce = aws::Nonce::assume_unique_for_key(nonce(counter));
            let (body, tag) = message[HEADER_LEN..].split_last_chunk_mut::<TAG_LEN>().unwrap();
            let sealed = self.0.seal_in_place_separate_tag(nonce, aws::Aad::empty(), body);
            tag.copy_from_slice(sealed.unwrap().as_ref());
        }
    }

    fn open(&mut self, messages: &mut Messages) {
        for (counter, message) in (0..).zip(messages.each()) {
            let nonce = aws::Nonce::assume_unique_for_key(nonce(counter));
            self.0.open_in_place(nonce, aws::Aad::empty(), &mut message[HEADER_LEN..]).unwrap();
        }
    }
}

struct RustCrypto(ChaCha20Poly1305);

impl Contender for RustCrypto {
    fn name(&self) -> String {
        "RustCrypto".to_owned()
    }

    fn seal(&mut self, messages: &mut Messages) {
        for (counter, message) in (0..).zip(messages.each()) {
            let (body, tag) = message[HEADER_LEN..].split_last_chunk_mut::<TAG_LEN>().unwrap();
            let nonce = nonce(counter).into();
            *tag = self.0.encrypt_inout_detached(&nonce, b"", body.into()).unwrap().into();
        }
    }

    fn open(&mut self, messages: &mut Messages) {
        for (counter, message) in (0..).zip(messages.each()) {
            let (body, tag) = message[HEADER_LEN..].split_last_chunk_mut::<TAG_LEN>().unwrap();
            let (nonce, tag) = (nonce(counter).into(), (*tag).into());
            self.0.decrypt_inout_detached(&nonce, b"", body.into(), &tag).unwrap();
        }
    }
}

fn contenders() -> Vec<Box<dyn Contender>> {
    let keys = |count: u8| (0..count).map(|key| Key::new(&[7 + key; 32])).collect();
    let aws = aws::UnboundKey::new(&aws::CHACHA20_POLY1305, &SECRET).expect("a key has 32 bytes");
    let ring = Aead::new(Choice::Ring).expect("it runs everywhere");
    let mut all: Vec<Box<dyn Contender>> =
        vec![Box::new(Batch { name: "ring", aead: ring, keys: keys(1) })];
    for (choice, name, name_of_four) in [
        (Choice::Avx512, "avx512", "avx512, 4 keys"),
        (Choice::Avx2, "avx2", "avx2, 4 keys"),
        (Choice::Auto, "auto", "auto, 4 keys"),
    ] {
        match Aead::new(choice) {
            Ok(aead) => {
                all.push(Box::new(Batch { name, aead, keys: keys(1) }));
                all.push(Box::new(Batch { name: name_of_four, aead, keys: keys(4) }));
            }
            Err(error) => println!("{name} skipped: {error}"),
        }
    }
    all.push(Box::new(AwsLc(aws::LessSafeKey::new(aws))));
    all.push(Box::new(RustCrypto(ChaCha20Poly1305::new(&SECRET.into()))));
    all
}

/// One contender's nanoseconds per packet in each round.
#[derive(Clone, Default)]
struct Times {
    seal: Vec<f64>,
    open: Vec<f64>,
}

/// Duration of one contender's measurement in a round.
const SLICE: Duration = Duration::from_millis(2);

fn measure(contender: &mut dyn Contender, messages: &mut Messages, count: usize) -> (f64, f64) {
    // Warms up caches and branch predictors.
    contender.seal(messages);
    contender.open(messages);
    let (mut seal, mut open) = (Duration::ZERO, Duration::ZERO);
    let mut times = 0;
    while seal + open < SLICE {
        let start = Instant::now();
        contender.seal(black_box(messages));
        let middle = Instant::now();
        contender.open(black_box(messages));
        open += middle.elapsed();
        seal += middle - start;
        times += 1;
    }
    let packets = f64::from(times) * count as f64;
    (seal.as_nanos() as f64 / packets, open.as_nanos() as f64 / packets)
}

fn quantile(values: &[f64], part: f64) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values[((values.len() - 1) as f64 * part).round() as usize]
}

fn main() {
    // Cargo adds `--bench`.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|it| it != "--bench").collect();
    let rounds = arguments.first().and_then(|it| it.parse().ok()).unwrap_or(15);
    let filter = arguments.get(1).map_or("", String::as_str);
    let mut contenders = contenders();
    contenders.retain(|it| it.name().contains(filter) || it.name() == "ring");
    let shapes =
        [(64, 0), (64, 64), (64, 128), (64, 256), (64, 576), (64, 1024), (64, 1408), (64, 1420)]
            .into_iter()
            .chain([1, 2, 3, 4, 6, 8, 12, 16, 32].map(|count| (count, 1420)))
            .chain([1, 2, 3, 4, 6, 8, 12, 16, 32].map(|count| (count, 64)));
    println!("{:>5} {:>5}  {:14} {:>8} {:>8}   × ring", "batch", "bytes", "", "seal ns", "open ns");
    let only = arguments.get(2);
    for (count, payload) in shapes {
        if only.is_some_and(|only| *only != format!("{count}x{payload}")) {
            continue;
        }
        let mut messages = Messages::new(count, payload);
        let mut times = vec![Times::default(); contenders.len()];
        for _ in 0..rounds {
            for (contender, times) in contenders.iter_mut().zip(&mut times) {
                let (seal, open) = measure(contender.as_mut(), &mut messages, count);
                times.seal.push(seal);
                times.open.push(open);
            }
        }
        for (contender, own) in contenders.iter().zip(&times) {
            let both = |times: &Times, round: usize| times.seal[round] + times.open[round];
            let ratios: Vec<f64> =
                (0..rounds).map(|round| both(&times[0], round) / both(own, round)).collect();
            println!(
                "{count:>5} {payload:>5}  {:14} {:>8.1} {:>8.1}   {:.2} [{:.2}–{:.2}]",
                contender.name(),
                quantile(&own.seal, 0.5),
                quantile(&own.open, 0.5),
                quantile(&ratios, 0.5),
                quantile(&ratios, 0.25),
                quantile(&ratios, 0.75),
            );
        }
    }
}
