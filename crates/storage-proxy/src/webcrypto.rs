//! Diffie-Hellman by the platform's cryptography, which is native code, for all reports of a job at once.
//!
//! What it does not compute, for whatever reason, the core does. No verdict depends on it.

use std::{cell::RefCell, fmt};

use daphne_core::hpke::{HpkeKem, HpkeKeypair, KeyAgreement, SharedPoints};
use futures::{FutureExt, future::LocalBoxFuture};
use wasm_bindgen::{JsCast, JsValue, prelude::wasm_bindgen};
use worker::{
    js_sys::{Promise, Uint8Array},
    wasm_bindgen_futures::JsFuture,
};

#[wasm_bindgen(module = "/src/x25519.js")]
extern "C" {
    #[wasm_bindgen(js_name = importPrivateKey)]
    fn import_private_key(bytes: &[u8]) -> Promise;
    #[wasm_bindgen(js_name = agree)]
    fn agree_with_each(private_key: &JsValue, points: &[u8]) -> Promise;
}

/// X25519 by WebCrypto, with the private keys that it was given so far, as keys that cannot be exported. They are gone when
/// it is dropped. `Debug` shows none of them.
#[derive(Default)]
pub struct WebCrypto {
    imported: RefCell<Vec<Imported>>,
}

/// A private key, by its public key.
struct Imported {
    public_key: Vec<u8>,
    private_key: JsValue,
}

impl fmt::Debug for WebCrypto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebCrypto").finish_non_exhaustive()
    }
}

impl WebCrypto {
    /// Results for as many points as there are, or why there are none.
    async fn try_to_agree(
        &self,
        keypair: &HpkeKeypair,
        points: &[[u8; 32]],
    ) -> Result<SharedPoints, JsValue> {
        let private_key = self.private_key(keypair).await?;
        let promise = agree_with_each(&private_key, points.as_flattened());
        let shared = JsFuture::from(promise).await?;
        let shared: Uint8Array = shared.dyn_into()?;
        let mut results = SharedPoints::new(vec![[0; 32]; points.len()]);
        let bytes = results.as_flattened_mut();
        if shared.length() as usize == bytes.len() {
            shared.copy_to(bytes);
        }
        shared.fill(0, 0, shared.length());
        #[cfg(feature = "test-routes")]
        crate::meter::agreed(results.iter().filter(|shared| **shared != [0; 32]).count());
        Ok(results)
    }

    async fn private_key(&self, keypair: &HpkeKeypair) -> Result<JsValue, JsValue> {
        let public_key = &keypair.config().public_key;
        let known = self.imported.borrow().iter().find_map(|imported| {
            (imported.public_key == *public_key).then(|| imported.private_key.clone())
        });
        if let Some(private_key) = known {
            return Ok(private_key);
        }
        let private_key = JsFuture::from(import_private_key(keypair.private_key())).await?;
        let imported =
            Imported { public_key: public_key.clone(), private_key: private_key.clone() };
        // Jobs that met the key at once have each imported it.
        let mut all = self.imported.borrow_mut();
        all.retain(|other| other.public_key != imported.public_key);
        all.push(imported);
        Ok(private_key)
    }
}

impl KeyAgreement for WebCrypto {
    fn agree<'a>(
        &'a self,
        keypair: &'a HpkeKeypair,
        points: &'a [[u8; 32]],
    ) -> LocalBoxFuture<'a, Option<SharedPoints>> {
        async move {
            if keypair.config().kem != HpkeKem::X25519HkdfSha256 {
                return None;
            }
            #[cfg(feature = "test-routes")]
            if crate::faults::webcrypto_is_away() {
                return None;
            }
            self.try_to_agree(keypair, points).await.ok()
        }
        .boxed_local()
    }
}
