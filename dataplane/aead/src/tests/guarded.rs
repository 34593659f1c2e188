//! Packets between inaccessible pages: an access beyond their ends kills the test.

use std::num::NonZeroUsize;
use std::ptr::NonNull;

use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, mprotect, munmap};

use super::*;

const PAGE: usize = 4096;
/// Pages between the guards, enough for the longest packet.
const PAGES: usize = 1;

/// Memory between two guard pages.
struct Guarded(NonNull<u8>);

impl Guarded {
    const LEN: usize = PAGES * PAGE;
    const MAPPED: NonZeroUsize = NonZeroUsize::new(Self::LEN + 2 * PAGE).unwrap();

    fn new() -> Guarded {
        // SAFETY: the mapping is new, and the part that becomes accessible lies within it.
        let start = unsafe {
            let (guard, inside) =
                (ProtFlags::PROT_NONE, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE);
            let whole = mmap_anonymous(None, Self::MAPPED, guard, MapFlags::MAP_PRIVATE).unwrap();
            let start = whole.byte_add(PAGE);
            mprotect(start, Self::LEN, inside).unwrap();
            start
        };
        Guarded(start.cast())
    }

    /// The memory between the guards.
    fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: mapped, initialised with zeros, owned by `self` and borrowed with it.
        unsafe { std::slice::from_raw_parts_mut(self.0.as_ptr(), Self::LEN) }
    }

    /// The first or the last `length` bytes.
    fn edge(&mut self, at_end: bool, length: usize) -> &mut [u8] {
        let start = if at_end { Self::LEN - length } else { 0 };
        &mut self.bytes()[start..start + length]
    }

    /// Copies `content` to the first or the last bytes, and returns these.
    fn put(&mut self, at_end: bool, content: &[u8]) -> &mut [u8] {
        let edge = self.edge(at_end, content.len());
        edge.copy_from_slice(content);
        edge
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // SAFETY: `new` has created the mapping, and nothing borrows it now.
        unsafe { munmap(self.0.byte_sub(PAGE).cast(), Self::MAPPED.get()).unwrap() };
    }
}

/// Lengths around the ends of blocks, and those of common packets.
fn lengths() -> impl Iterator<Item = usize> {
    (0..=300).chain(560..=600).chain(1400..=1460).step_by(cases(1, 23))
}

/// Whole messages at page ends, at page starts, or alternating.
#[test]
fn messages_at_page_boundaries() {
    const COUNT: usize = 9;
    let mut memories: Vec<Guarded> = (0..COUNT).map(|_| Guarded::new()).collect();
    let keys = [Key::new(&[3; 32])];
    let counter = |number| number as u64;
    for (path, aead) in paths() {
        for length in lengths() {
            for side in 0..3 {
                let is_at_end = |number: usize| [true, false, number.is_multiple_of(2)][side];
                // Later messages are shorter.
                let length = |number: usize| 32 + length - length.min(number / 3 * 7);
                let text = |number: usize| vec![number as u8; length(number)];
                let each = memories.iter_mut().enumerate();
                let texts =
                    each.map(|(number, memory)| memory.put(is_at_end(number), &text(number)));
                aead.seal(&mut to_seal(&keys, counter, texts));
                let each = memories.iter_mut().enumerate();
                let sealed =
                    each.map(|(number, memory)| memory.edge(is_at_end(number), length(number)));
                let mut batch = to_open(&keys, counter, sealed);
                aead.open(&mut batch);
                for (number, opened) in batch.iter().enumerate() {
                    assert!(opened.authentic, "{path:?}");
                    let end = length(number) - 16;
                    assert_eq!(opened.message[..end], text(number)[..end], "{path:?}");
                }
            }
        }
    }
}

/// Bodies, tags, keys and additional data, each between its own guards, at page starts or page
/// ends. Only for vector units: `ring` has no such interface.
#[test]
fn parts_at_page_boundaries() {
    const COUNT: usize = 9;
    let mut memories: Vec<[Guarded; 4]> =
        (0..COUNT).map(|_| std::array::from_fn(|_| Guarded::new())).collect();
    let mut random = Random::new(30);
    for (path, aead) in paths() {
        for length in lengths() {
            for at_end in [false, true] {
                let samples: Vec<Sample> =
                    (0..COUNT).map(|_| Sample::random(&mut random, length % 50, length)).collect();
                let sealed: Vec<Sample> = samples.iter().map(Sample::sealed).collect();
                let mut packets: Vec<Packet<'_>> = memories
                    .iter_mut()
                    .zip(&samples)
                    .map(|([body, tag, key, aad], sample)| Packet {
                        key: words_in(key.put(at_end, &bytes::<8, 32>(&sample.key))),
                        nonce: sample.nonce,
                        body: body.put(at_end, &sample.body),
                        tag: tag.put(at_end, &[0; 16]).try_into().unwrap(),
                        aad: aad.put(at_end, &sample.aad),
                    })
                    .collect();
                match aead.implementation {
                    Implementation::Avx2(unit) => batch::seal(unit, &mut packets),
                    Implementation::Avx512(unit) => batch::seal(unit, &mut packets),
                    Implementation::Ring => continue,
                }
                for (packet, sealed) in packets.iter().zip(&sealed) {
                    assert_eq!((&*packet.body, *packet.tag), (&sealed.body[..], sealed.tag));
                }
                let authentic = match aead.implementation {
                    Implementation::Avx2(unit) => batch::open(unit, &mut packets),
                    Implementation::Avx512(unit) => batch::open(unit, &mut packets),
                    Implementation::Ring => continue,
                };
                assert_eq!(authentic, (1 << COUNT) - 1, "{path:?}");
                for (packet, plain) in packets.iter().zip(&samples) {
                    assert_eq!(*packet.body, plain.body, "{path:?}");
                }
            }
        }
    }
}

/// The bytes as words, in place.
fn words_in(bytes: &[u8]) -> &[u32; 8] {
    // SAFETY: every bit pattern is a valid u32.
    let (before, words, _) = unsafe { bytes.align_to::<u32>() };
    assert!(before.is_empty(), "pages are aligned");
    words.try_into().unwrap()
}
