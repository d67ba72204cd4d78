//! Bearer tokens of leaders. A task has several while its leader changes from one to another.

use serde::{Deserialize, Serialize};

use super::{ConfigResponse, ConfigTables, Sealer, TaskEntry};
use crate::{
    aggregator_api::{IssuedToken, token_label},
    ids::TaskId,
    seal::TokenHash,
    store::{StoreError, StoreResult},
    task::StoredTask,
    taskprov::LEADER_TOKENS_MAX,
};

/// A request about a leader's tokens. What is as it should be is left as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRequest {
    /// The task.
    pub task: TaskId,
    /// What to change.
    pub change: TokenChange,
}

/// A change of a leader's tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TokenChange {
    /// The leader may present this one, too.
    Add(TokenHash),
    /// The leader may no longer present this one.
    Remove(TokenHash),
    /// The leader may no longer present the one with this [`TokenHash::name`].
    RemoveNamed(String),
    /// The leader may present this one, too, which the control plane is to be given; unless the one that it was given
    /// still works, and can still be told.
    Issue(IssuedToken),
}

/// Why tokens are not changed. Each text says what to do instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum TokenRefusal {
    /// There are many.
    #[error(
        "the task has {LEADER_TOKENS_MAX} leader tokens already; remove one that is not used any more"
    )]
    TooMany,
    /// The leader could not authenticate any more.
    #[error("this is the task's only leader token; add its successor first")]
    Last,
    /// There is none.
    #[error("the task has no such leader token")]
    NoSuchToken,
    /// Two have this name, which is once in four billion.
    #[error("two of the task's leader tokens have this name; give the token or its hash")]
    Ambiguous,
    /// It has no tokens of its own.
    #[error(
        "the task was brought by its leader, whose tokens are those of the peer; change them there"
    )]
    Brought,
}

/// Changes the tokens of a task's leader; answers with the task's record as it is then.
pub(super) fn respond(
    t: &mut impl ConfigTables,
    request: &TokenRequest,
    sealer: &impl Sealer,
) -> StoreResult<ConfigResponse> {
    let Some(TaskEntry { identity, record: Some(record) }) = t.task(&request.task)? else {
        return Ok(ConfigResponse::NotFound);
    };
    let mut task: StoredTask = serde_json::from_slice(&record)
        .map_err(|e| StoreError(format!("a stored task is malformed: {e}")))?;
    if task.parameters.taskprov.is_some() {
        return Ok(ConfigResponse::TokensRefused(TokenRefusal::Brought));
    }
    let hashes = &mut task.leader_token_hashes;
    // Of two that are asked for at once, the first is what both are given.
    let mut given = None;
    if let (TokenChange::Issue(_), Some(issued)) = (&request.change, &task.issued_token)
        && sealer.opens(&token_label(&request.task), &issued.sealed)?
    {
        given = Some(issued.hash);
    }
    let is_meant = |hash: &TokenHash| match &request.change {
        TokenChange::Add(meant) | TokenChange::Remove(meant) => hash == meant,
        TokenChange::RemoveNamed(name) => hash.name() == *name,
        TokenChange::Issue(_) => Some(*hash) == given,
    };
    let meant = hashes.iter().filter(|hash| is_meant(hash)).count();
    let refusal = match (&request.change, meant) {
        (TokenChange::Add(_) | TokenChange::Issue(_), 1..) => {
            return Ok(ConfigResponse::Task(record));
        }
        (TokenChange::Add(_) | TokenChange::Issue(_), 0) if hashes.len() >= LEADER_TOKENS_MAX => {
            Some(TokenRefusal::TooMany)
        }
        (TokenChange::Issue(issued), 0) => {
            hashes.push(issued.hash);
            task.issued_token = Some(issued.clone());
            None
        }
        (TokenChange::Add(hash), 0) => {
            hashes.push(*hash);
            None
        }
        (_, 0) => Some(TokenRefusal::NoSuchToken),
        (_, 2..) => Some(TokenRefusal::Ambiguous),
        (_, 1) if hashes.len() == 1 => Some(TokenRefusal::Last),
        (_, 1) => {
            hashes.retain(|hash| !is_meant(hash));
            None
        }
    };
    if let Some(refusal) = refusal {
        return Ok(ConfigResponse::TokensRefused(refusal));
    }
    // The identity stays: a repeat of the task's creation is one, whatever tokens came since.
    let record = serde_json::to_vec(&task)
        .map_err(|e| StoreError(format!("a task cannot be written: {e}")))?;
    t.put_task(&request.task, &TaskEntry { identity, record: Some(record.clone()) })?;
    Ok(ConfigResponse::Task(record))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::{
        store::{Database as _, config_store::testing},
        testing::memory::{MemoryConfigTables, MemoryDatabase},
    };

    struct Tokens(MemoryDatabase<MemoryConfigTables>, TaskId, Cell<&'static str>);

    impl Tokens {
        fn new() -> Self {
            let db = MemoryDatabase::default();
            let id = testing::create_task(&db, &testing::roots("1"), 1);
            Self(db, id, Cell::new("1"))
        }

        fn change(&self, change: TokenChange) -> Result<Vec<TokenHash>, TokenRefusal> {
            let request = TokenRequest { task: self.1, change };
            let keys = testing::roots(self.2.get());
            match self.0.transaction(|t| respond(t, &request, &keys)).unwrap() {
                ConfigResponse::Task(record) => {
                    let stored: StoredTask = serde_json::from_slice(&record).unwrap();
                    let kept = self.0.transaction(|t| t.task(&self.1)).unwrap().unwrap();
                    assert_eq!(kept.record, Some(record));
                    assert_eq!(kept.identity, [1; 32]);
                    Ok(stored.leader_token_hashes)
                }
                ConfigResponse::TokensRefused(why) => Err(why),
                other => panic!("{other:?}"),
            }
        }

        fn remove(&self, hash: TokenHash) -> Result<Vec<TokenHash>, TokenRefusal> {
            self.change(TokenChange::Remove(hash))
        }

        fn remove_named(&self, name: &str) -> Result<Vec<TokenHash>, TokenRefusal> {
            self.change(TokenChange::RemoveNamed(name.to_owned()))
        }
    }

    #[test]
    fn a_leader_changes_from_one_token_to_the_next() {
        let t = Tokens::new();
        let [old, new] = ["token", "another"].map(TokenHash::of);
        assert_eq!(t.remove(old), Err(TokenRefusal::Last));
        assert_eq!(t.change(TokenChange::Add(new)).unwrap(), [old, new]);
        assert_eq!(t.change(TokenChange::Add(new)).unwrap(), [old, new], "once");
        assert_eq!(t.remove(old).unwrap(), [new]);
        assert_eq!(t.remove(old), Err(TokenRefusal::NoSuchToken));
        assert_eq!(t.remove_named(&new.name()), Err(TokenRefusal::Last));
        t.change(TokenChange::Add(old)).unwrap();
        assert_eq!(t.remove_named(&new.name()).unwrap(), [old]);
        assert_eq!(t.remove_named(""), Err(TokenRefusal::NoSuchToken));
    }

    #[test]
    fn a_task_has_only_so_many_tokens() {
        let t = Tokens::new();
        for n in 1..LEADER_TOKENS_MAX {
            t.change(TokenChange::Add(TokenHash::of(&n.to_string()))).unwrap();
        }
        assert_eq!(t.change(TokenChange::Add(TokenHash::of("more"))), Err(TokenRefusal::TooMany));
        let again = t.change(TokenChange::Add(TokenHash::of("1"))).unwrap();
        assert_eq!(again.len(), LEADER_TOKENS_MAX);
    }

    #[test]
    fn a_control_plane_is_given_another_token_when_the_one_it_was_given_works_no_more() {
        let t = Tokens::new();
        let keys = testing::roots("1");
        let issued = |n: u8| IssuedToken::new(&t.1, &[n; 16], &keys, [n; 12]);
        let issue = |n: u8| t.change(TokenChange::Issue(issued(n))).unwrap();
        let given = || {
            let entry = t.0.transaction(|tables| tables.task(&t.1)).unwrap().unwrap();
            let stored: StoredTask = serde_json::from_slice(&entry.record.unwrap()).unwrap();
            stored.issued_token.unwrap()
        };
        let operators = TokenHash::of("token");
        assert_eq!(issue(1), [operators, issued(1).hash]);
        // Another request at the same moment is given the same.
        assert_eq!(issue(2), [operators, issued(1).hash]);
        assert_eq!(given(), issued(1));
        t.remove(issued(1).hash).unwrap();
        assert_eq!(issue(2), [operators, issued(2).hash], "the one that was removed stays removed");
        assert_eq!(given(), issued(2));
        assert_eq!(*given().open(&t.1, &keys).unwrap(), crate::b64::encode(&[2; 16]));
        t.remove(issued(2).hash).unwrap();
        for n in 1..LEADER_TOKENS_MAX {
            t.change(TokenChange::Add(TokenHash::of(&n.to_string()))).unwrap();
        }
        assert_eq!(t.change(TokenChange::Issue(issued(3))), Err(TokenRefusal::TooMany));
    }

    /// Its root key was taken away. Whoever has the token goes on with it.
    #[test]
    fn a_control_plane_is_given_another_token_when_the_one_it_was_given_cannot_be_told_any_more() {
        let t = Tokens::new();
        let issued =
            |n: u8, roots: &str| IssuedToken::new(&t.1, &[n; 16], &testing::roots(roots), [n; 12]);
        let [operators, lost] = [TokenHash::of("token"), issued(1, "2").hash];
        let issue = |n: u8| t.change(TokenChange::Issue(issued(n, "1"))).unwrap();
        t.2.set("12");
        t.change(TokenChange::Issue(issued(1, "2"))).unwrap();
        assert_eq!(issue(2), [operators, lost], "it opens");
        t.2.set("1");
        let given = [operators, lost, issued(2, "1").hash];
        assert_eq!(issue(2), given);
        assert_eq!(issue(3), given, "the one that opens is given to all");
    }
}
