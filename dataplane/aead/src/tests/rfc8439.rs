//! The vectors of RFC 8439, each in every position of a batch of 64.

use super::*;

const SUNSCREEN: &[u8] = b"Ladies and Gentlemen of the class of '99: If I could offer you only \
one tip for the future, sunscreen would be it.";

/// §2.8.2: key, nonce, additional data, plaintext, ciphertext, tag.
fn section_2_8_2() -> (Sample, Sample) {
    let key: [u8; 32] = std::array::from_fn(|byte| 0x80 + byte as u8);
    let nonce = hex("07000000 4041424344454647").try_into().unwrap();
    let plain = Sample::new(&key, &nonce, &hex("50515253c0c1c2c3c4c5c6c7"), SUNSCREEN);
    let sealed = Sample {
        body: hex("d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d6
            3dbea45e8ca9671282fafb69da92728b1a71de0a9e060b2905d6a5b67ecd3b36
            92ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b4831d7bc
            3ff4def08e4b7a9de576d26586cec64b6116"),
        tag: hex("1ae10b594f09e26a7e902ecbd0600691").try_into().unwrap(),
        ..plain.clone()
    };
    (plain, sealed)
}

/// Appendix A.5.
fn appendix_a_5() -> (Sample, Sample) {
    let key = hex("1c9240a5eb55d38af333888604f6b5f0473917c1402b80099dca5cbc207075c0");
    let nonce = hex("000000000102030405060708").try_into().unwrap();
    let aad = hex("f33388860000000000004e91");
    let text = "Internet-Drafts are draft documents valid for a maximum of six months and may be \
        updated, replaced, or obsoleted by other documents at any time. It is inappropriate to use \
        Internet-Drafts as reference material or to cite them other than as /\u{201c}work in \
        progress./\u{201d}";
    let plain = Sample::new(&key.try_into().unwrap(), &nonce, &aad, text.as_bytes());
    let sealed = Sample {
        body: hex("64a0861575861af460f062c79be643bd5e805cfd345cf389f108670ac76c8cb2
            4c6cfc18755d43eea09ee94e382d26b0bdb7b73c321b0100d4f03b7f355894cf
            332f830e710b97ce98c8a84abd0b948114ad176e008d33bd60f982b1ff37c855
            9797a06ef4f0ef61c186324e2b3506383606907b6a7c02b0f9f6157b53c867e4
            b9166c767b804d46a59b5216cde7a4e99040c5a40433225ee282a1b0a06c523e
            af4534d7f83fa1155b0047718cbc546a0d072b04b3564eea1b422273f548271a
            0bb2316053fa76991955ebd63159434ecebb4e466dae5a1073a6727627097a10
            49e617d91d361094fa68f0ff77987130305beaba2eda04df997b714d6c6f2c29
            a6ad5cb4022b02709b"),
        tag: hex("eead9d67890cbb22392336fea1851f38").try_into().unwrap(),
        ..plain.clone()
    };
    (plain, sealed)
}

#[test]
fn aead_in_every_position() {
    for (path, aead) in paths() {
        for (plain, sealed) in [section_2_8_2(), appendix_a_5()] {
            let mut random = Random::new(1);
            let neighbours: Vec<Sample> = (0..crate::BATCH)
                .map(|_| {
                    let (aad, body) = (random.below(20), random.below(200));
                    Sample::random(&mut random, aad, body)
                })
                .collect();
            for position in 0..neighbours.len() {
                let mut plains = neighbours.clone();
                plains[position] = plain.clone();
                let mut samples = plains.clone();
                seal(aead, &mut samples);
                assert_eq!(samples[position], sealed, "{path:?} at position {position}");
                assert!(open(aead, &mut samples).into_iter().all(|authentic| authentic));
                for (opened, plain) in samples.iter().zip(&plains) {
                    assert_eq!(opened.body, plain.body, "{path:?} at position {position}");
                }
            }
        }
    }
}

/// Key stream from block 1 on: sealed zeros.
fn key_stream(aead: Aead, key: &[u8], nonce: &[u8], blocks: usize) -> Vec<u8> {
    let (key, nonce) = (key.try_into().unwrap(), nonce.try_into().unwrap());
    let mut samples = [Sample::new(key, nonce, &[], &vec![0; blocks * 64])];
    seal(aead, &mut samples);
    samples[0].body.clone()
}

/// §2.3.2, and the vectors of appendix A.1 with a block counter above 0: block 0 is not key
/// stream.
#[test]
fn chacha20_blocks() {
    let counting: Vec<u8> = (0..32).collect();
    let mut one_bit = [0; 32];
    one_bit[1] = 0xff;
    let vectors: [(&[u8], &str, usize, &str); 4] = [
        (
            &counting,
            "000000090000004a00000000",
            1,
            "10f1e7e4d13b5915500fdd1fa32071c4c7d1f4c733c068030422aa9ac3d46c4e
             d2826446079faa0914c2d705d98b02a2b5129cd1de164eb9cbd083e8a2503c4e",
        ),
        (
            &[0; 32],
            "000000000000000000000000",
            1,
            "9f07e7be5551387a98ba977c732d080dcb0f29a048e3656912c6533e32ee7aed
             29b721769ce64e43d57133b074d839d531ed1f28510afb45ace10a1f4b794d6f",
        ),
        (
            &{
                let mut key = [0; 32];
                key[31] = 1;
                key
            },
            "000000000000000000000000",
            1,
            "3aeb5224ecf849929b9d828db1ced4dd832025e8018b8160b82284f3c949aa5a
             8eca00bbb4a73bdad192b5c42f73f2fd4e273644c8b36125a64addeb006c13a0",
        ),
        (
            &one_bit,
            "000000000000000000000000",
            2,
            "72d54dfbf12ec44b362692df94137f328fea8da73990265ec1bbbea1ae9af0ca
             13b25aa26cb4a648cb9b9d1be65b2c0924a66c54d545ec1b7374f4872e99f096",
        ),
    ];
    for (path, aead) in paths() {
        for (key, nonce, number, block) in vectors {
            let stream = key_stream(aead, key, &hex(nonce), number);
            assert_eq!(stream[(number - 1) * 64..], hex(block), "{path:?}, block {number}");
        }
    }
}
