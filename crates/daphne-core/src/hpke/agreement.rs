//! Diffie-Hellman results that somebody else computes, for many messages at once.
//!
//! X25519 is most of what opening a message costs, more so in WebAssembly, and a host may have a faster one, which
//! it can only wait for. What it computes is a pure function: which of the two was asked changes no verdict.

use std::fmt;

use futures::{FutureExt as _, future::LocalBoxFuture};
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use super::HpkeKeypair;

/// Results of X25519 (RFC 7748 §5), in the order of the points, 32 bytes each. Secret. Zeros stand where there is none: the core
/// computes that one itself, so that nobody else's error refuses a report.
pub type SharedPoints = Zeroizing<Vec<[u8; 32]>>;

/// Whoever computes X25519 for many messages at once.
pub trait KeyAgreement: fmt::Debug {
    /// The private key of `keypair`, which is one of X25519, with each of `points`, which are any 32 bytes. `None` if it
    /// cannot be done here.
    fn agree<'a>(
        &'a self,
        keypair: &'a HpkeKeypair,
        points: &'a [[u8; 32]],
    ) -> LocalBoxFuture<'a, Option<SharedPoints>>;
}

/// The core's own X25519: what anybody else's is compared with.
#[derive(Clone, Copy, Debug)]
pub struct OwnX25519;

impl OwnX25519 {
    /// As [`KeyAgreement::agree`]. Zeros where RFC 7748 §6.1 has zeros.
    pub fn results(self, keypair: &HpkeKeypair, points: &[[u8; 32]]) -> Option<SharedPoints> {
        let private_key = Zeroizing::new(<[u8; 32]>::try_from(keypair.private_key()).ok()?);
        let private_key = StaticSecret::from(*private_key);
        let shared = |point: &[u8; 32]| private_key.diffie_hellman(&PublicKey::from(*point));
        Some(SharedPoints::new(points.iter().map(|point| shared(point).to_bytes()).collect()))
    }
}

impl KeyAgreement for OwnX25519 {
    fn agree<'a>(
        &'a self,
        keypair: &'a HpkeKeypair,
        points: &'a [[u8; 32]],
    ) -> LocalBoxFuture<'a, Option<SharedPoints>> {
        async move { self.results(keypair, points) }.boxed_local()
    }
}
