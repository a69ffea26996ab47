//! The state: values by key, and up to which operation they go, in one file.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use redb::{
    Database, ReadTransaction, ReadableDatabase as _, ReadableTable as _, ReadableTableMetadata as _,
};
use redb::{Table, TableDefinition};
use state_machine::{Batch, Failed, Position, QueryError, Snapshot, StateMachine};

use crate::command::{Command, Outcome, Query};
use crate::encoding;

/// What is kept in memory, however much there is.
const CACHE_BYTES: usize = 64 << 20;
const VALUES: TableDefinition<&str, &str> = TableDefinition::new("values");
/// One row: the last operation applied, and its cluster.
const POSITION: TableDefinition<(), (u64, u64)> = TableDefinition::new("position");

/// A file, which is open.
pub(crate) struct Store {
    folder: PathBuf,
    /// Absent after an error: `redb` wants to be opened anew then, as only what is on disk is sure.
    database: Option<Database>,
}

impl Store {
    /// Opens what is in the folder, or begins with nothing.
    pub(crate) fn open(folder: &Path) -> Result<Self, Failed> {
        fs::create_dir_all(folder)?;
        let mut store = Self {
            folder: folder.to_owned(),
            database: None,
        };
        store.database()?;
        Ok(store)
    }

    fn database(&mut self) -> Result<&Database, Failed> {
        let database = match self.database.take() {
            Some(database) => database,
            None => create(&self.folder.join("state.redb"))?,
        };
        Ok(self.database.insert(database))
    }
}

impl StateMachine for Store {
    fn position(&mut self) -> Result<Position, Failed> {
        let table = self.database()?.begin_read()?.open_table(POSITION)?;
        let row = table.get(())?.map(|row| row.value());
        Ok(
            row.map_or(Position::default(), |(applied_index, cluster_id)| Position {
                applied_index,
                cluster_id,
            }),
        )
    }

    fn apply(&mut self, batch: &Batch) -> Result<Vec<Vec<u8>>, Failed> {
        let applied = apply_all(self.database()?, batch);
        if applied.is_err() {
            self.database = None;
        }
        applied
    }

    fn query(&mut self, query: &[u8]) -> Result<Vec<u8>, QueryError> {
        let query = Query::parse(query).map_err(|why| QueryError::Invalid(why.to_owned()))?;
        let database = self.database().map_err(QueryError::Failed)?;
        let values = database.begin_read()?.open_table(VALUES)?;
        let outcome = match query {
            Query::Get { key } => value_of(values.get(key)?.map(|value| value.value().to_owned())),
            Query::Count => Outcome::Count(values.len()?),
        };
        Ok(outcome.to_string().into_bytes())
    }

    /// A read transaction reads what is there now, whatever is written meanwhile.
    fn snapshot(&mut self) -> Result<Snapshot, Failed> {
        let transaction = self.database()?.begin_read()?;
        Ok(Box::new(move |out| write_all(&transaction, out)))
    }

    /// Into another file, which takes the place of this one when it is complete.
    fn restore(&mut self, position: Position, snapshot: &mut dyn Read) -> Result<(), Failed> {
        let (new, state) = (self.folder.join("new.redb"), self.folder.join("state.redb"));
        remove(&new)?;
        let restored = create(&new).and_then(|database| fill(database, position, snapshot));
        let Ok(database) = restored else {
            // The room that it takes may be what is missing.
            remove(&new)?;
            return restored.map(drop);
        };
        fs::rename(&new, &state)?;
        self.database = Some(database);
        // Whether the name is there after a crash nobody knows where that fails: only a new start knows what is stored.
        let synced = File::open(&self.folder).and_then(|folder| folder.sync_all());
        synced.unwrap_or_else(|error| panic!("cannot sync {}: {error}", self.folder.display()));
        Ok(())
    }
}

/// Opens a file with its tables.
fn create(path: &Path) -> Result<Database, Failed> {
    let database = Database::builder().set_cache_size(CACHE_BYTES).create(path)?;
    let transaction = database.begin_write()?;
    transaction.open_table(VALUES)?;
    transaction.open_table(POSITION)?;
    transaction.commit()?;
    Ok(database)
}

/// Values and position in one transaction: after a crash both are there, or neither is.
fn apply_all(database: &Database, batch: &Batch) -> Result<Vec<Vec<u8>>, Failed> {
    let transaction = database.begin_write()?;
    let mut results = Vec::new();
    {
        let mut values = transaction.open_table(VALUES)?;
        for operation in batch {
            // What makes no sense is turned down on every replica alike.
            let result = match Command::parse(&operation.data) {
                Ok(command) => apply(&mut values, &command)?.to_string(),
                Err(why) => why.to_owned(),
            };
            results.push(result.into_bytes());
        }
        set_position(&mut transaction.open_table(POSITION)?, batch.position())?;
    }
    transaction.commit()?;
    Ok(results)
}

/// Puts all of a snapshot into an empty file; gives it back when it would survive a crash.
fn fill(database: Database, position: Position, snapshot: &mut dyn Read) -> Result<Database, Failed> {
    let transaction = database.begin_write()?;
    {
        let mut values = transaction.open_table(VALUES)?;
        while let Some(key) = encoding::read(snapshot)? {
            let value = encoding::read(snapshot)?.ok_or_else(|| Failed::new("a key without a value"))?;
            values.insert(key.as_str(), value.as_str())?;
        }
        set_position(&mut transaction.open_table(POSITION)?, position)?;
    }
    transaction.commit()?;
    Ok(database)
}

/// Removes a file, if it is there.
fn remove(file: &Path) -> Result<(), Failed> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

fn set_position(table: &mut Table<(), (u64, u64)>, position: Position) -> Result<(), Failed> {
    table.insert((), (position.applied_index, position.cluster_id))?;
    Ok(())
}

fn apply(values: &mut Table<&str, &str>, command: &Command) -> Result<Outcome, Failed> {
    let found = values.get(command.key())?.map(|value| value.value().to_owned());
    Ok(match command {
        Command::Put { key, value } => {
            values.insert(key, value)?;
            Outcome::Ok
        }
        Command::Delete { key } => values.remove(key)?.map_or(Outcome::None, |_| Outcome::Ok),
        Command::CompareAndSwap { key, expected, value } if found.as_deref() == Some(expected) => {
            values.insert(key, value)?;
            Outcome::Ok
        }
        // Of what is not what was expected, nothing changes.
        Command::Get { .. } | Command::CompareAndSwap { .. } => value_of(found),
    })
}

fn value_of(found: Option<String>) -> Outcome {
    found.map_or(Outcome::None, Outcome::Value)
}

fn write_all(transaction: &ReadTransaction, out: &mut dyn Write) -> Result<(), Failed> {
    for row in transaction.open_table(VALUES)?.iter()? {
        let (key, value) = row?;
        encoding::write(key.value(), out)?;
        encoding::write(value.value(), out)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Position = Position {
        applied_index: 0,
        cluster_id: 9,
    };

    fn texts(results: Vec<Vec<u8>>) -> Vec<String> {
        let text = |result| String::from_utf8(result).unwrap();
        results.into_iter().map(text).collect()
    }

    #[test]
    fn what_is_applied_is_there_after_a_new_start() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = Store::open(folder.path()).unwrap();
        assert_eq!(store.position().unwrap(), Position::default());
        let batch = Batch::following(
            START,
            1,
            [
                "put a 1",
                "get a",
                "cas a 2 3",
                "cas a 1 3",
                "get a",
                "delete b",
                "cas b 1 2",
                "nonsense",
            ],
        );
        let results = texts(store.apply(&batch).unwrap());
        assert_eq!(
            results[..7],
            ["ok", "value 1", "value 1", "ok", "value 3", "none", "none"]
        );
        assert!(results[7].starts_with("invalid"));
        drop(store);
        let mut store = Store::open(folder.path()).unwrap();
        assert_eq!(store.position().unwrap(), batch.position());
        assert_eq!(store.query(b"get a").unwrap(), b"value 3");
        assert_eq!(store.query(b"count").unwrap(), b"1");
        assert!(matches!(store.query(b"what"), Err(QueryError::Invalid(_))));
    }

    #[test]
    fn a_snapshot_is_of_when_it_was_taken_and_replaces_all_or_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = Store::open(&folder.path().join("one")).unwrap();
        let first = Batch::following(START, 1, ["put a 1", "put b 2"]);
        store.apply(&first).unwrap();
        let snapshot = store.snapshot().unwrap();
        let more = Batch::following(first.position(), 1, ["put a 9"]);
        store.apply(&more).unwrap();
        let mut bytes = Vec::new();
        snapshot(&mut bytes).unwrap();

        let mut other = Store::open(&folder.path().join("two")).unwrap();
        let before = Batch::following(START, 1, ["put c 3"]);
        other.apply(&before).unwrap();
        // One that ends between two pairs is found by whoever knows how long it was to be.
        for length in (1..bytes.len()).filter(|length| *length != 10) {
            let broken = other.restore(first.position(), &mut &bytes[..length]);
            assert!(broken.is_err(), "{length} bytes");
            assert_eq!(other.query(b"get c").unwrap(), b"value 3", "{length} bytes");
            assert_eq!(other.position().unwrap(), before.position());
        }
        other.restore(first.position(), &mut &bytes[..]).unwrap();
        drop(other);
        let mut other = Store::open(&folder.path().join("two")).unwrap();
        assert_eq!(other.position().unwrap(), first.position());
        for (query, expected) in [("get a", "value 1"), ("get b", "value 2"), ("get c", "none")] {
            assert_eq!(texts(vec![other.query(query.as_bytes()).unwrap()]), [expected]);
        }
    }
}
