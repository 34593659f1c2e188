//! Both roles against each other. Against another implementation: tests/known_answers.rs.

use super::*;

struct Pair {
    initiator: Identity,
    responder: Identity,
}

fn secret(byte: u8) -> Secret {
    Zeroizing::new([byte; 32])
}

fn pair() -> Pair {
    Pair { initiator: Identity::new(&[11; 32]), responder: Identity::new(&[22; 32]) }
}

fn initiation(pair: &Pair) -> (Initiated, [u8; INITIATION_LEN]) {
    let mut message = [0; INITIATION_LEN];
    let invitation = InitiationParams {
        remote_static: pair.responder.public(),
        static_static: &pair.initiator.static_static(pair.responder.public()).expect("good keys"),
        ephemeral: &secret(33),
        timestamp: Timestamp([7; 12]),
        local_index: 0x0102_0304,
    };
    (initiate(&pair.initiator, &invitation, &mut message).expect("good keys"), message)
}

fn prove(pair: &Pair, message: &[u8; INITIATION_LEN]) -> Option<Proven> {
    let claimed = open_initiation(&pair.responder, message)?;
    let static_static = pair.responder.static_static(&claimed.remote_static)?;
    claimed.prove(&static_static)
}

#[test]
fn both_ends_derive_the_same_keys() {
    let pair = pair();
    let (initiated, message) = initiation(&pair);
    let proven = prove(&pair, &message).expect("authentic");
    assert_eq!(&proven.remote_static, pair.initiator.public());
    assert_eq!(proven.timestamp, Timestamp([7; 12]));
    let mut answer = [0; RESPONSE_LEN];
    let theirs = proven.respond(&secret(5), &secret(44), 77, &mut answer).expect("good keys");
    assert!(initiated.finish(&pair.initiator, &secret(6), &answer).is_none(), "another PSK");
    let ours = initiated.finish(&pair.initiator, &secret(5), &answer).expect("authentic");
    assert_eq!((&ours.send, &ours.receive), (&theirs.receive, &theirs.send));
    assert_ne!(ours.send, ours.receive);
    assert_eq!((ours.remote_index, theirs.remote_index), (77, 0x0102_0304));
}

#[test]
fn every_flipped_bit_of_an_initiation_is_refused_or_harmless() {
    let pair = pair();
    let (_, message) = initiation(&pair);
    for bit in 8 * 8..116 * 8 {
        let mut flipped = message;
        flipped[bit / 8] ^= 1 << (bit % 8);
        // RFC 7748: the top bit of a public key is ignored by the DH; the hash notices it.
        assert!(prove(&pair, &flipped).is_none(), "bit {bit}");
    }
}

#[test]
fn every_flipped_bit_of_a_response_is_refused() {
    let pair = pair();
    let (initiated, message) = initiation(&pair);
    let proven = prove(&pair, &message).expect("authentic");
    let mut answer = [0; RESPONSE_LEN];
    proven.respond(&secret(0), &secret(44), 77, &mut answer).expect("good keys");
    for bit in 12 * 8..60 * 8 {
        let mut flipped = answer;
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(initiated.finish(&pair.initiator, &secret(0), &flipped).is_none(), "bit {bit}");
    }
    assert!(initiated.finish(&pair.initiator, &secret(0), &answer).is_some(), "still waiting");
}

#[test]
fn an_initiation_for_another_key_does_not_open() {
    let pair = pair();
    let (_, message) = initiation(&pair);
    assert!(open_initiation(&Identity::new(&[99; 32]), &message).is_none());
}

#[test]
fn low_order_keys_are_refused() {
    let identity = Identity::new(&[1; 32]);
    let mut one = [0; 32];
    one[0] = 1;
    for public in [[0; 32], one] {
        assert!(identity.static_static(&public).is_none());
        let mut message = [0; INITIATION_LEN];
        message[initiation::EPHEMERAL].copy_from_slice(&public);
        assert!(open_initiation(&identity, &message).is_none());
    }
}

#[test]
fn an_identity_knows_its_private_key() {
    let identity = Identity::new(&[255; 32]);
    assert!(identity.is(&[255; 32]));
    assert!(!identity.is(&[254; 32]) || clamp(&[254; 32]) == clamp(&[255; 32]));
    assert_eq!(*identity.private(), clamp(&[255; 32]));
}
