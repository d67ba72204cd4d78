//! `hpke-rs` is the oracle: both open the same bytes to the same bytes, and refuse the same.

use super::*;
use crate::{
    hpke::{HpkeConfig, open_with_hpke_rs, seal, tests::hex},
    ids::HpkeConfigId,
    testing::{faulty::Random, points::hostile_points},
};

const AEADS: [HpkeAead; 2] = [HpkeAead::Aes128Gcm, HpkeAead::Aes256Gcm];

fn keypair(seed: u8, aead: HpkeAead) -> HpkeKeypair {
    let made =
        HpkeKeypair::derive(HpkeConfigId(7), HpkeKem::X25519HkdfSha256, &[seed; 32]).unwrap();
    let config = HpkeConfig { aead, ..made.config.clone() };
    HpkeKeypair::from_parts(config, made.private_key).unwrap()
}

fn ciphertext<'a>(enc: &'a [u8], payload: &'a [u8]) -> HpkeCiphertext<'a> {
    HpkeCiphertext { config_id: HpkeConfigId(7), enc, payload }
}

/// Bytes that look random and are always the same.
struct Bytes(Random);

impl Bytes {
    fn below(&mut self, end: usize) -> usize {
        self.0.below(end as u64) as usize
    }

    fn byte(&mut self) -> u8 {
        self.0.next_u64() as u8
    }

    fn array(&mut self) -> [u8; 32] {
        std::array::from_fn(|_| self.byte())
    }

    fn up_to(&mut self, max: usize) -> Vec<u8> {
        (0..self.below(max + 1)).map(|_| self.byte()).collect()
    }
}

/// Opens in every way there is, which must come to the same.
fn open_all_ways(
    keypair: &HpkeKeypair,
    info: &[u8],
    aad: &[u8],
    sealed: HpkeCiphertext<'_>,
) -> Result<Vec<u8>, OpenError> {
    let opener = Opener::new(keypair, info);
    assert!(opener.schedule.is_some());
    let oracle = open_with_hpke_rs(keypair, info, aad, sealed);
    assert_eq!(opener.open(aad, sealed), oracle);
    match opener.point(sealed) {
        None => assert_eq!(oracle, Err(OpenError)),
        Some(point) => {
            let private_key = <[u8; 32]>::try_from(keypair.private_key()).unwrap();
            let shared = StaticSecret::from(private_key).diffie_hellman(&PublicKey::from(point));
            assert_eq!(opener.open_with(shared.as_bytes(), aad, sealed), oracle);
        }
    }
    oracle
}

/// Seals with a Diffie-Hellman result that is known without a private key.
fn forge(keypair: &HpkeKeypair, shared: &[u8; 32], enc: &[u8; 32], plaintext: &[u8]) -> Vec<u8> {
    let schedule = Schedule::new(keypair, b"info").unwrap();
    let (key, nonce) = schedule.key_and_nonce(shared, enc);
    let nonce: &Array<u8, consts::U12> = nonce.first_chunk::<12>().unwrap().into();
    let mut message = plaintext.to_vec();
    let buffer = message.as_mut_slice().into();
    let tag = match schedule.aead {
        Aead::Aes128Gcm => Aes128Gcm::new(key.first_chunk::<16>().unwrap().into())
            .encrypt_inout_detached(nonce, b"aad", buffer),
        Aead::Aes256Gcm => {
            Aes256Gcm::new((&*key).into()).encrypt_inout_detached(nonce, b"aad", buffer)
        }
    };
    message.extend(tag.unwrap());
    message
}

/// RFC 9180 A.1.1: what the context is made of.
#[test]
fn the_key_schedule_of_the_rfc() {
    let seed = hex("6db9df30aa07dd42ee5e8181afdb977e538f5e1fec8a06223f33f7013e525037");
    let keypair = HpkeKeypair::derive(HpkeConfigId(0), HpkeKem::X25519HkdfSha256, &seed).unwrap();
    let enc: [u8; 32] =
        hex("37fda3567bdbd628e88668c3c8d7e97d1d1253b6d4ea6d44c150f741f1bf4431").try_into().unwrap();
    let schedule =
        Schedule::new(&keypair, &hex("4f6465206f6e2061204772656369616e2055726e")).unwrap();
    let shared = schedule.private_key.diffie_hellman(&PublicKey::from(enc));
    let (key, nonce) = schedule.key_and_nonce(shared.as_bytes(), &enc);
    assert_eq!(key[..16], hex("4531685d41d65f03dc48f6b8302c05b0"));
    assert_eq!(nonce[..12], hex("56d890e5accaaf011cff4b7d"));
}

#[test]
fn it_opens_what_is_sealed_and_what_hpke_rs_opens() {
    let mut any = Bytes(Random::new(1));
    for round in 0..200_u32 {
        let keypair = keypair(any.byte(), AEADS[round as usize % 2]);
        let [info, aad, plaintext] = [150, 700, 2500].map(|max| any.up_to(max));
        let sealed = seal(keypair.config(), &info, &aad, &plaintext, &any.array()).unwrap();
        assert_eq!(open_all_ways(&keypair, &info, &aad, sealed.as_ref()), Ok(plaintext));
    }
}

#[test]
fn it_refuses_what_hpke_rs_refuses() {
    let mut any = Bytes(Random::new(2));
    for round in 0..200_u32 {
        let keypair = keypair(any.byte(), AEADS[round as usize % 2]);
        let mut parts = [40, 80, 60].map(|max| any.up_to(max));
        parts.iter_mut().for_each(|part| part.push(1));
        let [info, aad, plaintext] = parts;
        let sealed = seal(keypair.config(), &info, &aad, &plaintext, &any.array()).unwrap();
        // One flipped bit, or one byte more or less, in any part.
        for part in 0..4 {
            for change in 0..3 {
                let mut parts =
                    [info.clone(), aad.clone(), sealed.enc.clone(), sealed.payload.clone()];
                let bytes = &mut parts[part];
                match change {
                    0 => {
                        let bit = any.below(bytes.len() * 8);
                        bytes[bit / 8] ^= 1 << (bit % 8);
                    }
                    1 => bytes.push(any.byte()),
                    _ => {
                        bytes.pop();
                    }
                }
                let [info, aad, enc, payload] = &parts;
                let changed = ciphertext(enc, payload);
                assert_eq!(open_all_ways(&keypair, info, aad, changed), Err(OpenError));
            }
        }
    }
}

#[test]
fn lengths_of_all_kinds_are_refused_alike() {
    for aead in AEADS {
        let keypair = keypair(1, aead);
        let sealed = seal(keypair.config(), b"info", b"aad", b"plain", &[3; 32]).unwrap();
        for n in 0..=100 {
            let (zeros, twos) = (vec![0; n], vec![2; n]);
            for enc in [&zeros, &twos] {
                let refused =
                    open_all_ways(&keypair, b"info", b"aad", ciphertext(enc, &sealed.payload));
                assert_eq!(refused, Err(OpenError));
            }
            let payload = &sealed.payload[..n.min(sealed.payload.len() - 1)];
            let refused =
                open_all_ways(&keypair, b"info", b"aad", ciphertext(&sealed.enc, payload));
            assert_eq!(refused, Err(OpenError));
            let refused = open_all_ways(&keypair, b"info", b"aad", ciphertext(&sealed.enc, &twos));
            assert_eq!(refused, Err(OpenError));
        }
    }
}

#[test]
fn an_empty_plaintext_opens() {
    for aead in AEADS {
        let keypair = keypair(1, aead);
        let sealed = seal(keypair.config(), b"", b"", b"", &[3; 32]).unwrap();
        assert_eq!(open_all_ways(&keypair, b"", b"", sealed.as_ref()), Ok(vec![]));
    }
}

/// Whoever seals knows the Diffie-Hellman result of the base point, which is the public key: also of its other spellings.
/// Which spelling was sent is hashed, so that each is a message of its own.
#[test]
fn other_spellings_of_a_point_open_alike() {
    for aead in AEADS {
        let keypair = keypair(1, aead);
        let shared = keypair.config.public_key.as_slice().try_into().unwrap();
        let mut base = [0; 32];
        base[0] = 9;
        let mut high_bit = base;
        high_bit[31] |= 0x80;
        // 9 + p
        let mut beyond = [0xff; 32];
        (beyond[0], beyond[31]) = (0xf6, 0x7f);
        let mut beyond_with_high_bit = beyond;
        beyond_with_high_bit[31] = 0xff;
        for enc in [base, high_bit, beyond, beyond_with_high_bit] {
            let payload = forge(&keypair, &shared, &enc, b"plaintext");
            let opened = open_all_ways(&keypair, b"info", b"aad", ciphertext(&enc, &payload));
            assert_eq!(opened, Ok(b"plaintext".to_vec()));
            let opened = open_all_ways(&keypair, b"info", b"aad", ciphertext(&[9; 32], &payload));
            assert_eq!(opened, Err(OpenError));
        }
    }
}

/// RFC 9180 §7.1.4.
#[test]
fn points_of_low_order_open_nothing() {
    for aead in AEADS {
        let keypair = keypair(1, aead);
        let mut low_order = 0;
        for enc in hostile_points() {
            // It would open, if zero were taken.
            let payload = forge(&keypair, &[0; 32], &enc, b"plaintext");
            let opened = open_all_ways(&keypair, b"info", b"aad", ciphertext(&enc, &payload));
            assert_eq!(opened, Err(OpenError));
            let private_key = <[u8; 32]>::try_from(keypair.private_key()).unwrap();
            let shared = StaticSecret::from(private_key).diffie_hellman(&PublicKey::from(enc));
            low_order += u32::from(shared.as_bytes() == &[0; 32]);
        }
        assert!(low_order >= 14, "{low_order}");
    }
}

#[test]
fn other_suites_are_opened_by_hpke_rs() {
    let made = keypair(1, HpkeAead::Aes128Gcm);
    let p256 = HpkeKeypair::derive(HpkeConfigId(7), HpkeKem::P256HkdfSha256, &[4; 32]).unwrap();
    let with = |kdf, aead| {
        let config = HpkeConfig { kdf, aead, ..made.config.clone() };
        HpkeKeypair::from_parts(config, made.private_key.clone()).unwrap()
    };
    for keypair in [
        p256,
        with(HpkeKdf::HkdfSha512, HpkeAead::Aes128Gcm),
        with(HpkeKdf::HkdfSha256, HpkeAead::ChaCha20Poly1305),
    ] {
        let opener = Opener::new(&keypair, b"info");
        let sealed = seal(keypair.config(), b"info", b"aad", b"plain", &[3; 32]).unwrap();
        assert_eq!(opener.open(b"aad", sealed.as_ref()), Ok(b"plain".to_vec()));
        assert_eq!(opener.point(sealed.as_ref()), None);
        assert_eq!(opener.open_with(&[1; 32], b"aad", sealed.as_ref()), Err(OpenError));
    }
}

#[test]
fn a_wrong_result_opens_nothing() {
    let keypair = keypair(1, HpkeAead::Aes128Gcm);
    let opener = Opener::new(&keypair, b"info");
    let sealed = seal(keypair.config(), b"info", b"aad", b"plain", &[3; 32]).unwrap();
    assert_eq!(opener.open_with(&[0; 32], b"aad", sealed.as_ref()), Err(OpenError));
    assert_eq!(opener.open_with(&[1; 32], b"aad", sealed.as_ref()), Err(OpenError));
    assert!(opener.open(b"aad", sealed.as_ref()).is_ok());
}

#[test]
fn an_opener_prints_no_secret() {
    let keypair = keypair(1, HpkeAead::Aes128Gcm);
    let printed = format!("{:?}", Opener::new(&keypair, b"info"));
    assert!(printed.contains("config") && printed.ends_with(", .. }"));
    assert!(!printed.contains(&crate::b64::encode(keypair.private_key())));
    assert!(!printed.contains(&format!("{:?}", keypair.private_key())));
}
