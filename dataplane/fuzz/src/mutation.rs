//! Inputs mutated from a corpus, without knowledge of what they reach.

use crate::random::Random;

/// Most mutations of one input.
const MUTATIONS_MAX: usize = 12;
/// Most bytes that one mutation removes or copies.
const PIECE_MAX: usize = 80;
/// Most bytes of a run.
const RUN_MAX: usize = 9_000;

/// Numbers at the edges of ranges: lengths, verdicts, ports, prefix lengths.
const BYTES: [u8; 12] = [0, 1, 2, 4, 6, 17, 25, 53, 64, 80, 128, 255];
const WORDS: [u32; 8] = [0, 1, 2, 3, 0xffff, 0x8000_0000, u32::MAX, 0xffff_fffb];

/// An input: one of the corpus, mutated. Half of the inputs keep their length, and with it the
/// offsets of binary formats.
pub fn input(corpus: &[Vec<u8>], words: &[&[u8]], random: &mut Random) -> Vec<u8> {
    let mut bytes = corpus.get(random.below(corpus.len().max(1))).cloned().unwrap_or_default();
    let keeps_length = random.below(2) == 0;
    for _ in 0..random.below(MUTATIONS_MAX) {
        match keeps_length && !bytes.is_empty() {
            true => overwrite(&mut bytes, random),
            false => resize(&mut bytes, corpus, words, random),
        }
    }
    bytes
}

/// Changes some bytes of an input that is not empty.
fn overwrite(bytes: &mut [u8], random: &mut Random) {
    let length = bytes.len();
    let at = random.below(length);
    match random.below(5) {
        0 => bytes[at] ^= 1 << random.below(8),
        1 => bytes[at] = random.number() as u8,
        2 => bytes[at] = random.pick(&BYTES),
        3 => {
            let from = random.below(length);
            let count = random.below((length - at.max(from)).min(PIECE_MAX)) + 1;
            bytes.copy_within(from..from + count, at);
        }
        _ => {
            let word = random.pick(&WORDS);
            let word = if random.below(2) == 0 { word.to_be_bytes() } else { word.to_ne_bytes() };
            let word = &word[[0, 2][random.below(2)]..];
            let end = length.min(at + word.len());
            bytes[at..end].copy_from_slice(&word[..end - at]);
        }
    }
}

/// Changes an input and its length.
fn resize(bytes: &mut Vec<u8>, corpus: &[Vec<u8>], words: &[&[u8]], random: &mut Random) {
    let at = random.below(bytes.len() + 1);
    let end = at + random.below(bytes.len() - at + 1).min(PIECE_MAX);
    match random.below(8) {
        0 | 1 if !bytes.is_empty() => overwrite(bytes, random),
        2 => drop(bytes.drain(at..end)),
        3 => {
            let copy = bytes[at..end].to_vec();
            let to = random.below(bytes.len() + 1);
            bytes.splice(to..to, copy);
        }
        4 if !corpus.is_empty() => {
            let other = &corpus[random.below(corpus.len())];
            bytes.truncate(at);
            bytes.extend_from_slice(&other[random.below(other.len() + 1)..]);
        }
        5 if random.below(4) == 0 => {
            let run = vec![random.number() as u8; random.below(RUN_MAX)];
            bytes.splice(at..at, run);
        }
        _ if !words.is_empty() => {
            let word = random.pick(words);
            bytes.splice(at..at, word.iter().copied());
        }
        _ => bytes.insert(at, random.number() as u8),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_input_depends_on_seed_and_round_only() {
        let corpus = [b"get=1\n\n".to_vec(), Vec::new()];
        let inputs = |seed| {
            let input = |round| input(&corpus, &[b"set"], &mut Random::of_round(seed, round));
            (0..500).map(input).collect::<Vec<_>>()
        };
        assert_eq!(inputs(1), inputs(1));
        let (one, two) = (inputs(1), inputs(2));
        let same = one.iter().filter(|input| two.contains(input)).count();
        assert!(same < 250, "{same} of 500: other seeds, other inputs");
        assert!(one.iter().any(|input| input.windows(3).any(|bytes| bytes == b"set")));
    }
}
