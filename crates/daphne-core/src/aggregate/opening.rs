//! Opening the reports of a job: what is the same for all of them is prepared once, and a host that computes Diffie-Hellman
//! faster than the core does it for all of them at once, before the first is looked at.

use std::{cell::OnceCell, collections::BTreeSet};

use subtle::ConstantTimeEq as _;

use super::helper::HpkeKeyring;
use crate::{
    hpke::{self, KeyAgreement, Opener, Role, SharedPoints},
    ids::HpkeConfigId,
    message::{AggregationJobInit, HpkeCiphertext},
    version::DapVersion,
};

/// The keys that open a job's reports, and the Diffie-Hellman results that are there before they are opened.
#[derive(Debug)]
pub(super) struct Opening<'a> {
    openers: Vec<Opener<'a>>,
    init: &'a AggregationJobInit<'a>,
    shared: OnceCell<SharedPoints>,
}

impl<'a> Opening<'a> {
    /// Those of our keys that reports of the job are sealed to.
    pub(super) fn new(
        version: DapVersion,
        keys: &'a HpkeKeyring,
        init: &'a AggregationJobInit<'a>,
    ) -> Self {
        let info = hpke::input_share_info(version, Role::Helper);
        let ids: BTreeSet<u8> = ciphertexts(init).map(|c| c.config_id.0).collect();
        let keypairs = ids.into_iter().filter_map(|id| keys.get(HpkeConfigId(id)));
        let openers = keypairs.map(|keypair| Opener::new(keypair, &info)).collect();
        Self { openers, init, shared: OnceCell::new() }
    }

    /// Has somebody else compute Diffie-Hellman for all reports that need it, once. What they do not compute,
    /// [`Opener::open`] does.
    pub(super) async fn agree(&self, with: &dyn KeyAgreement) {
        if self.shared.get().is_some() {
            return;
        }
        let mut shared = SharedPoints::new(vec![[0; 32]; self.init.verify_inits.len()]);
        for opener in &self.openers {
            let id = opener.keypair().config().id;
            let (places, points): (Vec<usize>, Vec<[u8; 32]>) = ciphertexts(self.init)
                .enumerate()
                .filter(|(_, ciphertext)| ciphertext.config_id == id)
                .filter_map(|(n, ciphertext)| Some((n, opener.point(ciphertext)?)))
                .unzip();
            if points.is_empty() {
                continue;
            }
            let Some(results) = with.agree(opener.keypair(), &points).await else { continue };
            for (n, result) in places.into_iter().zip(&*results) {
                if let Some(place) = shared.get_mut(n) {
                    *place = *result;
                }
            }
        }
        // Whoever was first counts; both computed the same.
        let _ = self.shared.set(shared);
    }

    /// The opener of reports that are sealed to this key, if it is ours.
    pub(super) fn opener(&self, id: HpkeConfigId) -> Option<&Opener<'a>> {
        self.openers.iter().find(|opener| opener.keypair().config().id == id)
    }

    /// The Diffie-Hellman result of the n-th report, if it is there. Secret.
    pub(super) fn shared(&self, n: usize) -> Option<&[u8; 32]> {
        self.shared.get()?.get(n).filter(|shared| bool::from(shared.ct_ne(&[0; 32])))
    }
}

fn ciphertexts<'a>(
    init: &'a AggregationJobInit<'a>,
) -> impl Iterator<Item = HpkeCiphertext<'a>> + 'a {
    init.verify_inits.iter().map(|v| v.report_share.encrypted_input_share)
}
