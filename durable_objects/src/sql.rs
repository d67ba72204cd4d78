//! SQLite of a Durable Object as a [`Database`]: transactions, statements, and the conversion of values.
//!
//! Every handler runs in one `transactionSync`, which the `worker` crate does not bind. Statements outside of one
//! stay committed when a handler fails half way; inside, an error or a panic rolls all of them back.
//!
//! Numbers bind as REAL, and integers above 2^53 are rounded, so ids, counts and checksums are stored as blobs.

use std::{
    cell::{Cell, RefCell},
    marker::PhantomData,
    panic::AssertUnwindSafe,
};

use daphne_core::store::{Database, StoreError, StoreResult};
use serde::{Serialize, de::DeserializeOwned};
use wasm_bindgen::{JsCast, JsValue, prelude::wasm_bindgen};
use worker::{SqlStorage, SqlStorageValue, State};

#[wasm_bindgen]
extern "C" {
    type RawStorage;

    #[wasm_bindgen(method, catch, js_name = transactionSync)]
    fn transaction_sync(
        this: &RawStorage,
        f: &mut dyn FnMut() -> Result<JsValue, JsValue>,
    ) -> Result<JsValue, JsValue>;
}

/// Tables of one class of object.
pub trait Tables {
    /// Statements that create what does not exist. Additive from version to version: during a deploy, old and new
    /// code see the same tables.
    const SCHEMA: &'static [&'static str];

    /// The tables behind `sql`.
    fn new(sql: Sql) -> Self;
}

/// The database of one object.
pub struct SqlDatabase<T> {
    storage: worker::Storage,
    has_schema: Cell<bool>,
    tables: PhantomData<fn() -> T>,
}

impl<T: Tables> SqlDatabase<T> {
    /// The database of the object whose state this is. Reads and writes nothing yet.
    pub fn new(state: &State) -> Self {
        Self { storage: state.storage(), has_schema: Cell::new(false), tables: PhantomData }
    }

    /// All tables are gone; the next transaction creates those that are always there.
    pub fn erased(&self) {
        self.has_schema.set(false);
    }
}

impl<T: Tables> Database for SqlDatabase<T> {
    type Tables = T;

    fn transaction<R>(&self, f: impl FnOnce(&mut T) -> StoreResult<R>) -> StoreResult<R> {
        let sql = Sql(self.storage.sql());
        let create = !self.has_schema.get();
        let mut outcome: Option<StoreResult<R>> = None;
        let mut f = Some(f);
        let body = AssertUnwindSafe(RefCell::new(|| {
            let result = f.take().ok_or_else(|| StoreError("run twice".to_owned())).and_then(|f| {
                if create {
                    T::SCHEMA.iter().try_for_each(|statement| sql.run(statement, vec![]))?;
                }
                f(&mut T::new(sql.clone()))
            });
            let rollback = result.is_err();
            outcome = Some(result);
            if rollback { Err(JsValue::from_str("rolled back")) } else { Ok(JsValue::UNDEFINED) }
        }));
        let raw: &RawStorage = self.storage.as_raw().unchecked_ref();
        let committed = raw.transaction_sync(&mut || {
            // The wrapper as a whole is captured: only a shared reference to it may cross an unwind boundary.
            let body = &body;
            (body.borrow_mut())()
        });
        match (outcome, committed) {
            (Some(Ok(value)), Ok(_)) => {
                self.has_schema.set(true);
                Ok(value)
            }
            (Some(Err(error)), _) => Err(error),
            (_, Err(error)) => Err(StoreError(format!("the transaction failed: {error:?}"))),
            (None, Ok(_)) => Err(StoreError("the transaction did not run".to_owned())),
        }
    }
}

/// Statements.
#[derive(Clone)]
pub struct Sql(SqlStorage);

/// One row of an answer, read from the left.
pub struct Row(std::vec::IntoIter<SqlStorageValue>);

impl Sql {
    /// Runs a statement that answers nothing.
    ///
    /// # Errors
    /// SQLite's.
    pub fn run(&self, statement: &str, values: Vec<SqlStorageValue>) -> StoreResult<()> {
        self.each(statement, values, |_| Ok(()))
    }

    /// Visits the rows that a statement answers, one in memory at a time.
    ///
    /// # Errors
    /// SQLite's, or the visitor's.
    pub fn each(
        &self,
        statement: &str,
        values: Vec<SqlStorageValue>,
        mut visit: impl FnMut(Row) -> StoreResult<()>,
    ) -> StoreResult<()> {
        let cursor = self.0.exec(statement, values).map_err(failed)?;
        for row in cursor.raw() {
            visit(Row(row.map_err(failed)?.into_iter()))?;
        }
        #[cfg(feature = "test-routes")]
        crate::meter::ran(&cursor);
        Ok(())
    }

    /// The rows that a statement answers.
    ///
    /// # Errors
    /// SQLite's, or `read`'s.
    pub fn all<R>(
        &self,
        statement: &str,
        values: Vec<SqlStorageValue>,
        mut read: impl FnMut(Row) -> StoreResult<R>,
    ) -> StoreResult<Vec<R>> {
        let mut out = Vec::new();
        self.each(statement, values, |row| {
            out.push(read(row)?);
            Ok(())
        })?;
        Ok(out)
    }

    /// The first row that a statement answers.
    ///
    /// # Errors
    /// SQLite's, or `read`'s.
    pub fn first<R>(
        &self,
        statement: &str,
        values: Vec<SqlStorageValue>,
        read: impl FnMut(Row) -> StoreResult<R>,
    ) -> StoreResult<Option<R>> {
        Ok(self.all(statement, values, read)?.into_iter().next())
    }
}

impl Row {
    /// The next column, which holds a blob.
    ///
    /// # Errors
    /// It does not.
    pub fn blob(&mut self) -> StoreResult<Vec<u8>> {
        match self.0.next() {
            Some(SqlStorageValue::Blob(bytes)) => Ok(bytes),
            _ => Err(StoreError("a column does not hold a blob".to_owned())),
        }
    }

    /// The next column, which holds a blob or nothing.
    ///
    /// # Errors
    /// It holds something else.
    pub fn optional_blob(&mut self) -> StoreResult<Option<Vec<u8>>> {
        match self.0.next() {
            Some(SqlStorageValue::Blob(bytes)) => Ok(Some(bytes)),
            Some(SqlStorageValue::Null) => Ok(None),
            _ => Err(StoreError("a column holds neither a blob nor nothing".to_owned())),
        }
    }

    /// The next column, which holds a small integer.
    ///
    /// # Errors
    /// It does not.
    pub fn integer(&mut self) -> StoreResult<i64> {
        match self.0.next() {
            Some(SqlStorageValue::Integer(n)) => Ok(n),
            _ => Err(StoreError("a column does not hold an integer".to_owned())),
        }
    }

    /// The next column, a blob of fixed length.
    ///
    /// # Errors
    /// It is not.
    pub fn array<const N: usize>(&mut self) -> StoreResult<[u8; N]> {
        self.blob()?.try_into().map_err(|_| StoreError("a blob has the wrong length".to_owned()))
    }

    /// The next column, a packed value.
    ///
    /// # Errors
    /// It is not.
    pub fn packed<T: DeserializeOwned>(&mut self) -> StoreResult<T> {
        postcard::from_bytes(&self.blob()?)
            .map_err(|e| StoreError(format!("a stored value does not decode: {e}")))
    }
}

/// A value as one blob.
///
/// # Errors
/// A type that cannot be packed: a defect.
pub fn pack<T: Serialize>(value: &T) -> StoreResult<SqlStorageValue> {
    postcard::to_allocvec(value)
        .map(SqlStorageValue::Blob)
        .map_err(|e| StoreError(format!("a value cannot be packed: {e}")))
}

/// A blob to bind.
pub fn blob(bytes: &[u8]) -> SqlStorageValue {
    SqlStorageValue::Blob(bytes.to_vec())
}

fn failed(e: worker::Error) -> StoreError {
    StoreError(e.to_string())
}
