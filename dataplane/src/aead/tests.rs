//! Vector units beside `ring`.

use super::*;

#[test]
fn same_as_ring() {
    for choice in [Choice::Avx2, Choice::Avx512] {
        match Aead::new(choice) {
            Ok(aead) => compare(aead),
            Err(error) => eprintln!("skipped: {error}"),
        }
    }
}

fn compare(aead: Aead) {
    let ring = Aead::new(Choice::Ring).unwrap();
    let keys: Vec<Key> = (0..3).map(|k| Key::new(&[k * 37 + 1; 32])).collect();
    for batch in [2, 3, 5, 8, 9, 17, 64, 65, 130] {
        for base in [0, 1, 15, 16, 63, 64, 65, 100, 447, 448, 511, 1408, 1420] {
            for mix in 0..3 {
                let make = || -> Vec<Vec<u8>> {
                    (0..batch)
                        .map(|i| {
                            let len = if mix == 2 { (base * (i + 3)) % 1501 } else { base };
                            (0..len + 32).map(|b| (b * 7 + i * 13) as u8).collect()
                        })
                        .collect()
                };
                let (mut a, mut b) = (make(), make());
                let key = |i: usize| if mix == 0 { &keys[0] } else { &keys[i % 3] };
                let run = |aead: Aead, m: &mut Vec<Vec<u8>>| {
                    let mut batch: Vec<Seal> = m
                        .iter_mut()
                        .enumerate()
                        .map(|(i, message)| Seal { key: key(i), counter: i as u64 + 5, message })
                        .collect();
                    aead.seal(&mut batch);
                };
                run(aead, &mut a);
                run(ring, &mut b);
                assert_eq!(a, b, "{batch} {base} {mix}");
                for i in (0..batch).step_by(3) {
                    let at = 16 + (i * 31) % (a[i].len() - 16);
                    a[i][at] ^= 1 << (i % 8);
                }
                let before = a.clone();
                let mut batch: Vec<Open> = a
                    .iter_mut()
                    .enumerate()
                    .map(|(i, message)| Open {
                        key: key(i),
                        counter: i as u64 + 5,
                        message,
                        authentic: false,
                    })
                    .collect();
                aead.open(&mut batch);
                let verdicts: Vec<bool> = batch.iter().map(|o| o.authentic).collect();
                let plain = make();
                for (i, ok) in verdicts.into_iter().enumerate() {
                    assert_eq!(ok, i % 3 != 0);
                    let n = a[i].len() - 16;
                    if ok {
                        assert_eq!(a[i][..n], plain[i][..n]);
                    } else {
                        assert_eq!(a[i], before[i]);
                    }
                }
            }
        }
    }
}
