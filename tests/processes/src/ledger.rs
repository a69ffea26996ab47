//! The ledger in Python of `node/state-machine/examples`: how it is run, what its clients submit, and whether it was right.

use crate::binaries;
use crate::history::{Acknowledged, Unanswered};
use crate::load::Commands;
use crate::requirements;
use bytes::Bytes;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// In which there is each account's money at first.
pub const ACCOUNTS: u64 = 6;
/// So much of it.
pub const OPENED: u64 = 1_000;
/// More than there is in an account now and then.
const AMOUNT_MAX: u64 = 1_200;

/// A Python that has gRPC, and the protocol's messages for it.
#[derive(Debug)]
pub struct Python {
    interpreter: PathBuf,
    messages: TempDir,
}

impl Python {
    /// The first one that will do. `None`, after saying that `test` is skipped, where there is none.
    pub fn find(test: &str) -> Option<Self> {
        let found = Self::try_find();
        found.map_err(|why| requirements::skip(test, &why)).ok()
    }

    fn try_find() -> Result<Self, String> {
        // What comes first on PATH need not be the system's own, for which the packages are.
        let on_path = requirements::tool("python3");
        let interpreter = on_path
            .into_iter()
            .chain([PathBuf::from("/usr/bin/python3")])
            .find(|interpreter| {
                succeeds(Command::new(interpreter).args(["-c", "import grpc, google.protobuf"]))
            })
            .ok_or("no python3 has gRPC: install python3-grpcio")?;
        let messages = tempfile::tempdir().map_err(|error| format!("cannot make a folder: {error}"))?;
        let made = Command::new(folder().join("generate"))
            .arg(messages.path())
            .output();
        let made = made.map_err(|error| format!("cannot run the ledger's generate: {error}"))?;
        if !made.status.success() {
            return Err(String::from_utf8_lossy(&made.stderr).trim().to_owned());
        }
        Ok(Self {
            interpreter,
            messages,
        })
    }

    /// What a script is run by.
    pub fn launcher(&self) -> Vec<String> {
        vec![
            "env".to_owned(),
            format!("PYTHONPATH={}", self.messages.path().display()),
            // Nothing is to be left in the checkout.
            "PYTHONDONTWRITEBYTECODE=1".to_owned(),
            self.interpreter.display().to_string(),
        ]
    }

    /// The ledger itself.
    pub fn script(&self) -> PathBuf {
        folder().join("ledger.py")
    }

    /// Its tests.
    pub fn tests(&self) -> PathBuf {
        folder().join("test_ledger.py")
    }
}

fn folder() -> PathBuf {
    binaries::workspace().join(Path::new("node/state-machine/examples/ledger"))
}

fn succeeds(command: &mut Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}

/// The name of an account, 0 to [`ACCOUNTS`] - 1.
pub fn account(number: u64) -> String {
    format!("account-{number}")
}

/// Moves money from any account to any other.
#[derive(Debug, Clone, Copy)]
pub struct Transfers;

impl Commands for Transfers {
    fn next(&mut self, client: &str, sequence: u64, random: &mut ChaCha8Rng) -> Bytes {
        let from = random.random_range(0..ACCOUNTS);
        let to = (from + random.random_range(1..ACCOUNTS)) % ACCOUNTS;
        let amount = random.random_range(1..=AMOUNT_MAX);
        let (from, to) = (account(from), account(to));
        format!("transfer {client}.{sequence} {from} {to} {amount}").into()
    }

    fn told(&mut self, _: &Bytes) {}
}

/// One transfer as a ledger's journal has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Operation index.
    pub operation: u64,
    /// `ID FROM TO AMOUNT`.
    pub transfer: String,
}

impl Entry {
    /// Of one line.
    pub fn parse(line: &str) -> Option<Self> {
        let (operation, transfer) = line.split_once(' ')?;
        Some(Self {
            operation: operation.parse().ok()?,
            transfer: transfer.to_owned(),
        })
    }
}

/// What must never be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Violation {
    /// A transfer that was done, as its client was told, is not in the journal where it belongs.
    Lost(Box<Acknowledged>),
    /// One is there that was refused.
    DoneAllTheSame(Box<Acknowledged>),
    /// The answer is none that a ledger gives to a transfer.
    Answer(Box<Acknowledged>),
    /// The same transfer is there twice.
    Twice(Entry),
    /// Nobody ever submitted it.
    Invented(Entry),
    /// There was not that much money.
    Overdrawn(Entry),
    /// An account's balance is not what the journal makes of it.
    Balance {
        /// Whose.
        account: String,
        /// What it should be.
        expected: u64,
        /// What it is.
        found: u64,
    },
}

/// Checks one ledger, at its end: each transfer that was done is in its journal once, where its client was told; none that was refused is, nor
/// one that nobody submitted; and balances are what the journal makes of what there was at first.
///
/// # Errors
/// The first violation.
pub fn check(
    acknowledged: &[Acknowledged],
    unanswered: &[Unanswered],
    journal: &[Entry],
    balances: &BTreeMap<String, u64>,
) -> Result<(), Violation> {
    check_journal(acknowledged, unanswered, journal)?;
    let at: BTreeMap<u64, &Entry> = journal.iter().map(|entry| (entry.operation, entry)).collect();
    for answer in acknowledged {
        let is_there = at
            .get(&answer.index)
            .is_some_and(|entry| submitted(&entry.transfer) == answer.data);
        let result = answer.result.as_deref().map(String::from_utf8_lossy);
        match result.as_deref() {
            Some("done") if !is_there => return Err(Violation::Lost(Box::new(answer.clone()))),
            Some(refused) if refused.starts_with("refused: ") && is_there => {
                return Err(Violation::DoneAllTheSame(Box::new(answer.clone())));
            }
            Some(other) if other != "done" && !other.starts_with("refused: ") => {
                return Err(Violation::Answer(Box::new(answer.clone())));
            }
            // Its result was lost with its replicator.
            _ => {}
        }
    }
    check_balances(journal, balances)
}

fn submitted(transfer: &str) -> String {
    format!("transfer {transfer}")
}

fn check_journal(
    acknowledged: &[Acknowledged],
    unanswered: &[Unanswered],
    journal: &[Entry],
) -> Result<(), Violation> {
    let known = acknowledged
        .iter()
        .map(|answer| (&answer.data, Some(answer.index)));
    let given_up = unanswered.iter().map(|operation| (&operation.data, None));
    let mut left: BTreeMap<&Bytes, Option<u64>> = known.chain(given_up).collect();
    let mut done: BTreeSet<Bytes> = BTreeSet::new();
    for entry in journal {
        let data = Bytes::from(submitted(&entry.transfer));
        if done.contains(&data) {
            return Err(Violation::Twice(entry.clone()));
        }
        let index = left.remove(&data).ok_or(Violation::Invented(entry.clone()))?;
        if index.is_some_and(|index| index != entry.operation) {
            return Err(Violation::Invented(entry.clone()));
        }
        done.insert(data);
    }
    Ok(())
}

fn check_balances(journal: &[Entry], balances: &BTreeMap<String, u64>) -> Result<(), Violation> {
    let mut expected: BTreeMap<String, u64> = (0..ACCOUNTS).map(|number| (account(number), OPENED)).collect();
    for entry in journal {
        move_money(&mut expected, &entry.transfer).ok_or(Violation::Overdrawn(entry.clone()))?;
    }
    for (account, expected) in expected {
        let found = balances.get(&account).copied().unwrap_or_default();
        if found != expected {
            return Err(Violation::Balance {
                account,
                expected,
                found,
            });
        }
    }
    Ok(())
}

fn move_money(balances: &mut BTreeMap<String, u64>, transfer: &str) -> Option<()> {
    let mut words = transfer.split(' ').skip(1);
    let (from, to) = (words.next()?, words.next()?);
    let amount: u64 = words.next()?.parse().ok()?;
    let balance = balances.get_mut(from)?;
    *balance = balance.checked_sub(amount)?;
    *balances.get_mut(to)? += amount;
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(id: &str, rest: &str, index: u64, result: Option<&'static str>) -> Acknowledged {
        Acknowledged {
            client: "c".into(),
            sequence: index,
            data: format!("transfer {id} {rest}").into(),
            index,
            submitted_micros: 0,
            acknowledged_micros: 1,
            result: result.map(|result| Bytes::from_static(result.as_bytes())),
        }
    }

    fn entry(operation: u64, transfer: &str) -> Entry {
        Entry {
            operation,
            transfer: transfer.into(),
        }
    }

    /// a and e were done, b was refused, of c nobody knows the result, d was given up.
    struct Story {
        acknowledged: Vec<Acknowledged>,
        unanswered: Vec<Unanswered>,
        journal: Vec<Entry>,
        balances: BTreeMap<String, u64>,
    }

    fn story() -> Story {
        let mut balances: BTreeMap<String, u64> =
            (0..ACCOUNTS).map(|number| (account(number), OPENED)).collect();
        balances.insert(account(0), 995);
        balances.insert(account(1), 1005);
        Story {
            acknowledged: vec![
                told("a", "account-0 account-1 10", 7, Some("done")),
                told("b", "account-0 account-1 2000", 8, Some("refused: it has 990")),
                told("c", "account-1 account-0 2", 9, None),
                told("e", "account-1 account-0 3", 11, Some("done")),
            ],
            unanswered: vec![Unanswered {
                data: "transfer d account-0 account-1 1".into(),
                submitted_micros: 0,
            }],
            journal: vec![
                entry(7, "a account-0 account-1 10"),
                entry(9, "c account-1 account-0 2"),
                entry(11, "e account-1 account-0 3"),
            ],
            balances,
        }
    }

    fn checked(change: impl FnOnce(&mut Story)) -> Result<(), Violation> {
        let mut story = story();
        change(&mut story);
        check(
            &story.acknowledged,
            &story.unanswered,
            &story.journal,
            &story.balances,
        )
    }

    #[test]
    fn good_stories_pass() {
        assert_eq!(checked(|_| {}), Ok(()));
        assert_eq!(
            checked(|story| {
                story.journal.insert(2, entry(10, "d account-0 account-1 1"));
                story.balances.insert(account(0), 994);
                story.balances.insert(account(1), 1006);
            }),
            Ok(())
        );
    }

    #[test]
    fn what_must_never_be_is_found() {
        let lost = checked(|story| drop(story.journal.remove(0)));
        assert!(matches!(lost, Err(Violation::Lost(_))), "{lost:?}");
        let moved = checked(|story| story.journal[0].operation = 6);
        assert!(matches!(moved, Err(Violation::Invented(_))), "{moved:?}");
        let other = checked(|story| story.journal[0].transfer = "a account-0 account-1 11".into());
        assert!(matches!(other, Err(Violation::Invented(_))), "{other:?}");
        let refused = checked(|story| {
            story.acknowledged[0].result = Some(Bytes::from_static(b"refused: it has 1"));
        });
        assert!(
            matches!(refused, Err(Violation::DoneAllTheSame(_))),
            "{refused:?}"
        );
        let answer = checked(|story| story.acknowledged[0].result = Some(Bytes::from_static(b"ok")));
        assert!(matches!(answer, Err(Violation::Answer(_))), "{answer:?}");
        let twice = entry(12, "a account-0 account-1 10");
        let found = checked(|story| story.journal.push(twice.clone()));
        assert_eq!(found, Err(Violation::Twice(twice)));
        let poor = entry(8, "b account-0 account-1 2000");
        let found = checked(|story| {
            story.acknowledged[1].result = None;
            story.journal.insert(1, poor.clone());
        });
        assert_eq!(found, Err(Violation::Overdrawn(poor)));
        let found = checked(|story| story.balances.extend([(account(3), 999)]));
        assert_eq!(
            found,
            Err(Violation::Balance {
                account: account(3),
                expected: OPENED,
                found: 999
            })
        );
    }
}
