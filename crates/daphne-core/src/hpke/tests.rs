use super::*;

pub(super) fn hex(text: &str) -> Vec<u8> {
    text.as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

const KEMS: [HpkeKem; 2] = [HpkeKem::X25519HkdfSha256, HpkeKem::P256HkdfSha256];

fn keypair(kem: HpkeKem) -> HpkeKeypair {
    HpkeKeypair::derive(HpkeConfigId(7), kem, &[0x42; 32]).unwrap()
}

/// RFC 9180 Appendix A, base mode, the first encryption: A.1.1 and A.3.1.
#[test]
fn the_vectors_of_the_rfc() {
    struct Vector {
        kem: HpkeKem,
        ephemeral_ikm: &'static str,
        recipient_ikm: &'static str,
        recipient_public_key: &'static str,
        recipient_private_key: &'static str,
        enc: &'static str,
        ciphertext: &'static str,
    }
    for v in [
        Vector {
            kem: HpkeKem::X25519HkdfSha256,
            ephemeral_ikm: "7268600d403fce431561aef583ee1613527cff655c1343f29812e66706df3234",
            recipient_ikm: "6db9df30aa07dd42ee5e8181afdb977e538f5e1fec8a06223f33f7013e525037",
            recipient_public_key: "3948cfe0ad1ddb695d780e59077195da6c56506b027329794ab02bca80815c4d",
            recipient_private_key: "4612c550263fc8ad58375df3f557aac531d26850903e55a9f23f21d8534e8ac8",
            enc: "37fda3567bdbd628e88668c3c8d7e97d1d1253b6d4ea6d44c150f741f1bf4431",
            ciphertext: "f938558b5d72f1a23810b4be2ab4f84331acc02fc97babc53a52ae8218a355a96d8770ac83d07bea87e13c512a",
        },
        Vector {
            kem: HpkeKem::P256HkdfSha256,
            ephemeral_ikm: "4270e54ffd08d79d5928020af4686d8f6b7d35dbe470265f1f5aa22816ce860e",
            recipient_ikm: "668b37171f1072f3cf12ea8a236a45df23fc13b82af3609ad1e354f6ef817550",
            recipient_public_key: "04fe8c19ce0905191ebc298a9245792531f26f0cece2460639e8bc39cb7f706a826a779b4cf969b8a0e539c7f62fb3d30ad6aa8f80e30f1d128aafd68a2ce72ea0",
            recipient_private_key: "f3ce7fdae57e1a310d87f1ebbde6f328be0a99cdbcadf4d6589cf29de4b8ffd2",
            enc: "04a92719c6195d5085104f469a8b9814d5838ff72b60501e2c4466e5e67b325ac98536d7b61a1af4b78e5b7f951c0900be863c403ce65c9bfcb9382657222d18c4",
            ciphertext: "5ad590bb8baa577f8619db35a36311226a896e7342a6d836d8b7bcd2f20b6c7f9076ac232e3ab2523f39513434",
        },
    ] {
        let keypair = HpkeKeypair::derive(HpkeConfigId(0), v.kem, &hex(v.recipient_ikm)).unwrap();
        assert_eq!(keypair.config.public_key, hex(v.recipient_public_key));
        assert_eq!(*keypair.private_key, hex(v.recipient_private_key));

        let info = hex("4f6465206f6e2061204772656369616e2055726e");
        let aad = hex("436f756e742d30");
        let plaintext = hex("4265617574792069732074727574682c20747275746820626561757479");
        let seed = hex(v.ephemeral_ikm).try_into().unwrap();
        let sealed = seal(&keypair.config, &info, &aad, &plaintext, &seed).unwrap();
        assert_eq!(sealed.enc, hex(v.enc));
        assert_eq!(sealed.payload, hex(v.ciphertext));
        assert_eq!(open(&keypair, &info, &aad, sealed.as_ref()).unwrap(), plaintext);
    }
}

#[test]
fn every_suite_seals_and_opens() {
    for kem in KEMS {
        for kdf in [HpkeKdf::HkdfSha256, HpkeKdf::HkdfSha384, HpkeKdf::HkdfSha512] {
            for aead in [HpkeAead::Aes128Gcm, HpkeAead::Aes256Gcm, HpkeAead::ChaCha20Poly1305] {
                let derived = keypair(kem);
                let config = HpkeConfig { kdf, aead, ..derived.config.clone() };
                let keypair = HpkeKeypair::from_parts(config, derived.private_key).unwrap();
                for plaintext in [&b""[..], b"x", &[9; 100_000]] {
                    let sealed = seal(keypair.config(), b"i", b"a", plaintext, &[1; 32]).unwrap();
                    assert_eq!(sealed.config_id, HpkeConfigId(7));
                    assert_eq!(sealed.enc.len(), keypair.config.public_key.len());
                    assert_eq!(sealed.payload.len(), plaintext.len() + 16);
                    assert_eq!(open(&keypair, b"i", b"a", sealed.as_ref()).unwrap(), plaintext);
                }
            }
        }
    }
}

#[test]
fn the_seed_decides_the_ephemeral_key() {
    let keypair = keypair(HpkeKem::X25519HkdfSha256);
    let sealed = |seed| seal(keypair.config(), b"i", b"a", b"p", &seed).unwrap();
    assert_eq!(sealed([1; 32]), sealed([1; 32]));
    assert_ne!(sealed([1; 32]).enc, sealed([2; 32]).enc);
}

#[test]
fn every_changed_bit_is_noticed() {
    fn flips(bytes: &[u8]) -> impl Iterator<Item = Vec<u8>> {
        (0..bytes.len() * 8).map(|bit| {
            let mut changed = bytes.to_vec();
            changed[bit / 8] ^= 1 << (bit % 8);
            changed
        })
    }
    let (info, aad) = (b"info", b"associated");
    for kem in KEMS {
        let keypair = keypair(kem);
        let sealed = seal(keypair.config(), info, aad, b"plaintext", &[3; 32]).unwrap();
        let refused = |info: &[u8], aad: &[u8], enc: &[u8], payload: &[u8]| {
            let ciphertext = HpkeCiphertext { config_id: sealed.config_id, enc, payload };
            assert_eq!(open(&keypair, info, aad, ciphertext), Err(OpenError));
        };
        // Also the top bit of an X25519 key, which the multiplication ignores (RFC 7748 §5) and HPKE hashes.
        flips(&sealed.enc).for_each(|enc| refused(info, aad, &enc, &sealed.payload));
        flips(&sealed.payload).for_each(|payload| refused(info, aad, &sealed.enc, &payload));
        flips(info).for_each(|info| refused(&info, aad, &sealed.enc, &sealed.payload));
        flips(aad).for_each(|aad| refused(info, &aad, &sealed.enc, &sealed.payload));
        (0..sealed.payload.len())
            .for_each(|n| refused(info, aad, &sealed.enc, &sealed.payload[..n]));
    }
}

#[test]
fn no_encapsulated_key_panics() {
    // The points of order 1, 2, 4 and 8, and their other spellings modulo 2^255 - 19.
    let low_order = [
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "0000000000000000000000000000000000000000000000000000000000000080",
    ];
    for kem in KEMS {
        let keypair = keypair(kem);
        let sealed = seal(keypair.config(), b"", b"", b"p", &[3; 32]).unwrap();
        let refused = |enc: &[u8], payload: &[u8]| {
            let ciphertext = HpkeCiphertext { config_id: sealed.config_id, enc, payload };
            assert_eq!(open(&keypair, b"", b"", ciphertext), Err(OpenError));
        };
        low_order.iter().for_each(|enc| refused(&hex(enc), &sealed.payload));
        for n in 0..=80 {
            for fill in [0, 2, 4, 0xff] {
                refused(&vec![fill; n], &sealed.payload);
                refused(&vec![fill; n], b"");
            }
        }
        refused(b"", b"");
        refused(&sealed.enc, b"");
        // The same point of P-256, compressed.
        let mut compressed = sealed.enc[..33.min(sealed.enc.len())].to_vec();
        for tag in [2, 3] {
            compressed[0] = tag;
            refused(&compressed, &sealed.payload);
        }
    }
}

#[test]
fn a_malformed_or_unknown_configuration_is_not_sealed_to() {
    for kem in KEMS {
        let good = keypair(kem).config;
        for n in 0..=80 {
            let config = HpkeConfig { public_key: vec![0; n], ..good.clone() };
            assert_eq!(seal(&config, b"", b"", b"", &[1; 32]), Err(SealError), "{n}");
        }
    }
    let good = keypair(HpkeKem::X25519HkdfSha256).config;
    for config in [
        HpkeConfig { kem: HpkeKem::Other(0x11), ..good.clone() },
        HpkeConfig { kdf: HpkeKdf::Other(9), ..good.clone() },
        HpkeConfig { aead: HpkeAead::Other(0xffff), ..good.clone() },
    ] {
        assert!(!config.is_supported());
        assert_eq!(seal(&config, b"", b"", b"", &[1; 32]), Err(SealError));
    }
}

#[test]
fn key_pairs_are_checked_and_keep_their_secret() {
    for kem in KEMS {
        let keypair = keypair(kem);
        let other = HpkeKeypair::derive(HpkeConfigId(7), kem, &[0x43; 32]).unwrap();
        assert_eq!(
            HpkeKeypair::from_parts(keypair.config.clone(), other.private_key).unwrap_err(),
            KeypairError::Mismatch
        );
        for n in [0, 31, 33, 64] {
            let private_key = Zeroizing::new(vec![1; n]);
            assert_eq!(
                HpkeKeypair::from_parts(keypair.config.clone(), private_key).unwrap_err(),
                KeypairError::Mismatch
            );
        }
        let with_public_key = [&*keypair.private_key, &keypair.config.public_key[..]].concat();
        assert_eq!(
            HpkeKeypair::from_parts(keypair.config.clone(), with_public_key.into()).unwrap_err(),
            KeypairError::Mismatch
        );
        let json = keypair.to_secret_json();
        let read = HpkeKeypair::from_secret_json(&json).unwrap();
        assert_eq!(read.config, keypair.config);
        assert_eq!(read.private_key, keypair.private_key);
        let secret = b64::encode(&keypair.private_key);
        assert!(json.contains(&secret));
        assert!(!format!("{keypair:?}").contains(&secret));
        assert!(format!("{keypair:?}").ends_with(", .. }"));
        let broken = json.replace(&secret, &format!("{secret}!"));
        assert!(!HpkeKeypair::from_secret_json(&broken).unwrap_err().contains(&secret));
    }
    let id = HpkeConfigId(0);
    let short = HpkeKeypair::derive(id, HpkeKem::X25519HkdfSha256, &[1; 31]);
    assert_eq!(short.unwrap_err(), KeypairError::ShortSeed);
    let unknown = HpkeKeypair::derive(id, HpkeKem::Other(1), &[1; 32]);
    assert_eq!(unknown.unwrap_err(), KeypairError::Unsupported);
}

#[test]
fn deriving_agrees_with_hpke_rs() {
    for kem in KEMS {
        for byte in 0..20 {
            let keypair = HpkeKeypair::derive(HpkeConfigId(0), kem, &[byte; 40]).unwrap();
            let hpke = keypair.config.hpke(Once::empty()).unwrap();
            let theirs = hpke.derive_key_pair(&[byte; 40]).unwrap();
            assert_eq!(theirs.public_key().as_slice(), keypair.config.public_key);
            assert!(*theirs.private_key() == HpkePrivateKey::new(keypair.private_key.to_vec()));
        }
    }
}

#[test]
fn lists_of_configurations() {
    #[rustfmt::skip]
    let bytes = [
        0, 21, // length of the list
        3, 0, 0x20, 0, 1, 0, 1, 0, 2, 0xaa, 0xbb, // a suite we have
        4, 0xff, 0, 0, 9, 0, 0x77, 0, 1, 0xcc, // algorithms we do not have
    ];
    let list = Reader::all(&bytes, HpkeConfigList::read).unwrap();
    assert_eq!(list.0.len(), 2);
    assert!(list.0[0].is_supported() && !list.0[1].is_supported());
    assert_eq!(list.0[1].kem, HpkeKem::Other(0xff00));
    let mut w = Writer::new();
    list.write(&mut w);
    assert_eq!(w.finish().unwrap(), bytes);
    for n in 0..bytes.len() {
        assert!(Reader::all(&bytes[..n], HpkeConfigList::read).is_err(), "{n}");
    }
    for bad in [&[0u8, 0][..], &[0, 9, 3, 0, 0x20, 0, 1, 0, 1, 0, 0]] {
        assert!(matches!(Reader::all(bad, HpkeConfigList::read), Err(DecodeError::Invalid(_))));
    }
}

#[test]
fn configurations_in_json() {
    let config = HpkeConfig {
        id: HpkeConfigId(9),
        kem: HpkeKem::P256HkdfSha256,
        kdf: HpkeKdf::HkdfSha384,
        aead: HpkeAead::Other(0x77),
        public_key: vec![0xfb, 0xff],
    };
    let json = r#"{"id":9,"kem_id":"P256HkdfSha256","kdf_id":"HkdfSha384","aead_id":119,"public_key":"-_8"}"#;
    assert_eq!(serde_json::to_string(&config).unwrap(), json);
    assert_eq!(serde_json::from_str::<HpkeConfig>(json).unwrap(), config);
    for bad in [
        json.replace("P256HkdfSha256", "P521"),
        json.replace("-_8", "-_8="),
        json.replace("119", "65536"),
        json.replace("\"id\":9", "\"id\":256"),
        json.replace("{\"id\"", "{\"x\":1,\"id\""),
    ] {
        assert!(serde_json::from_str::<HpkeConfig>(&bad).is_err(), "{bad}");
    }
}

#[test]
fn info_strings() {
    assert_eq!(input_share_info(DapVersion::V09, Role::Leader), b"dap-09 input share\x01\x02");
    assert_eq!(input_share_info(DapVersion::V18, Role::Helper), b"dap-18 input share\x01\x03");
    assert_eq!(
        aggregate_share_info(DapVersion::V09, Role::Leader),
        b"dap-09 aggregate share\x02\x00"
    );
    assert_eq!(
        aggregate_share_info(DapVersion::V18, Role::Helper),
        b"dap-18 aggregate share\x03\x00"
    );
}
