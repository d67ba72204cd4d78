//! Exchanges recorded between two processes of another implementation, replayed: the Worker, with the recorded key and
//! tasks, gives the same answers. Its clock is the real one.

use daphne_core::{
    task::REPORT_EXPIRY_AGE_MAX,
    testing::recorded::{Exchange, Recording, say},
};
use e2e::{Client, Server, now, server::HPKE_KEY_ID};

fn answer(client: &Client, token: &str, exchange: &Exchange) -> Vec<u8> {
    let bearer = format!("Bearer {token}");
    let mut headers = Vec::new();
    if let Some(media_type) = &exchange.request.media_type {
        headers.extend([("authorization", bearer.as_str()), ("content-type", media_type.as_str())]);
    }
    let body = (!exchange.request.body.is_empty()).then_some(exchange.request.body.as_slice());
    let path = format!("/v09{}", exchange.path);
    let answer = client.ask(&exchange.method, &path, &headers, body);
    answer.ok(exchange.response.media_type.as_deref().expect("all have one")).to_vec()
}

#[test]
fn recorded_exchanges_are_answered_alike() {
    let recordings = Recording::all();
    let Some(first) = recordings.first() else { return };
    // A day less, for clocks that differ.
    let age_max = REPORT_EXPIRY_AGE_MAX.as_seconds() - 86_400;
    if recordings.iter().flat_map(|r| &r.exchanges).any(|e| e.unix_time + age_max < now()) {
        say("VECTORS TOO OLD: no task accepts reports as old as the recorded ones");
        return;
    }
    let server = Server::start();
    server.admin().import_hpke_key(&first.helper_keys, true, true).expect("a new key");
    server.admin().set_hpke_key_state(HPKE_KEY_ID, false, false).expect("another is left");
    let mut answered = 0;
    for recording in &recordings {
        assert_eq!(recording.helper_keys.config(), first.helper_keys.config());
        let mut spec = recording.spec.clone();
        spec.report_expiry_age = REPORT_EXPIRY_AGE_MAX;
        server.admin().create_task(&spec).expect("the task can be created");
        let token = spec.leader_token.as_deref().expect("recorded tasks have a token");
        answered += recording.replay(|exchange| answer(server.client(), token, exchange));
    }
    say(&format!("VECTORS dap-09-wire: the Worker answered {answered} recorded exchanges alike"));
}
