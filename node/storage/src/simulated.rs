//! A disk in memory that crashes, tears, fills up and rots: for simulations and tests.
//!
//! Like a real one it keeps what the operating system shows apart from what survives a power failure. Whole operations are
//! durable ([`Disk::execute`]); what was under way at a crash is given to [`MemoryDisk::kill`] or
//! [`MemoryDisk::power_failure`]. All choices come from the generator that is handed in.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use rand::Rng;

use crate::disk::{Disk, DiskError, DiskErrorKind, FileInfo, FileName, Op, Outcome};

const SECTOR: usize = 512;

/// The disk.
#[derive(Debug, Clone)]
pub struct MemoryDisk {
    files: BTreeMap<FileName, MemoryFile>,
    volume_bytes: u64,
    /// What files may take of it.
    room_bytes: u64,
    fail_next: Option<DiskErrorKind>,
    syncs: u64,
    /// Writes are said to be done before they are synced.
    skips_sync: bool,
}

/// A file: what is shown of it, and how to get back to what is durable.
#[derive(Debug, Clone, Default)]
struct MemoryFile {
    shown: Vec<u8>,
    /// Its length after a power failure, at least.
    durable_length: usize,
    /// What durable sectors hold where that differs from what is shown.
    unsynced: BTreeMap<usize, Vec<u8>>,
    /// Of the unsynced sectors those that no sync writes any more, since one has failed: only writing them again helps.
    given_up: BTreeSet<usize>,
    /// The folder names it, even after a power failure.
    linked: bool,
}

impl MemoryDisk {
    /// An empty one of that size.
    pub fn new(volume_bytes: u64) -> Self {
        Self {
            files: BTreeMap::new(),
            volume_bytes,
            room_bytes: volume_bytes,
            fail_next: None,
            syncs: 0,
            skips_sync: false,
        }
    }

    /// From now on [`Op::Write`] is said to be done without a sync, as by a program that forgets about it.
    pub fn skip_sync(&mut self) {
        self.skips_sync = true;
    }

    /// The process dies while these operations are under way, handed in in that order; the machine goes on. Some of what
    /// they do has happened, none of it is synced.
    pub fn kill(&mut self, under_way: &[Op], random: &mut dyn Rng) {
        // The first may be at any point; none after it has begun.
        if let Some(op) = under_way.first() {
            self.begin(op, random);
        }
        self.fail_next = None;
    }

    /// The operation fails, as a write or a sync does whose device reports an error. Some of it has happened and is shown; and
    /// the operating system takes what it could not write for written, so that a later sync does nothing about it.
    pub fn fail(&mut self, op: &Op, random: &mut dyn Rng) {
        self.begin(op, random);
        if let Op::Write { file, .. }
        | Op::Fill { file, .. }
        | Op::Create { file, .. }
        | Op::Rename { file, .. } = op
            && let Some(file) = self.files.get_mut(file)
        {
            file.given_up = file.unsynced.keys().copied().collect();
        }
    }

    /// The machine loses its power while these operations are under way. Of everything that is not synced, any subset of
    /// sectors survives. Whether some did behind others, of the same file, that did not.
    pub fn power_failure(&mut self, under_way: &[Op], random: &mut dyn Rng) -> bool {
        self.kill(under_way, random);
        self.files.retain(|_, file| file.linked || coin(random));
        self.files
            .values_mut()
            .fold(false, |disordered, file| file.lose(random) | disordered)
    }

    /// From now on files may take so much; those that are there stay. The volume is as large as it was: others fill it.
    pub fn limit_to(&mut self, room_bytes: u64) {
        self.room_bytes = room_bytes;
    }

    /// Bytes of all files.
    pub fn used_bytes(&self) -> u64 {
        self.files.values().map(|file| file.shown.len() as u64).sum()
    }

    /// The next write, fill, creation, replacement, renaming or removal fails in that way, without having had an effect.
    pub fn fail_next(&mut self, kind: DiskErrorKind) {
        self.fail_next = Some(kind);
    }

    /// Inverts the bits of a byte, durably. Whether the byte is there.
    pub fn rot(&mut self, file: FileName, offset: usize) -> bool {
        match self
            .files
            .get_mut(&file)
            .and_then(|file| file.shown.get_mut(offset))
        {
            Some(byte) => {
                *byte = !*byte;
                true
            }
            None => false,
        }
    }

    /// Writes over part of a file, durably: as a lost or misdirected write does.
    pub fn overwrite(&mut self, file: FileName, offset: usize, data: &[u8]) {
        let file = self.files.entry(file).or_default();
        file.write(offset, data);
        file.sync();
        file.linked = true;
    }

    /// Cuts a file, durably: as a person or a repaired file system does.
    pub fn cut(&mut self, file: FileName, length: usize) {
        if let Some(file) = self.files.get_mut(&file) {
            file.shown.truncate(length);
            file.sync();
        }
    }

    /// Removes a file, durably: as a person does.
    pub fn remove(&mut self, file: FileName) {
        self.files.remove(&file);
    }

    /// The content of a file as it is shown.
    pub fn content(&self, file: FileName) -> Option<&[u8]> {
        self.files.get(&file).map(|file| file.shown.as_slice())
    }

    /// Names of all files.
    pub fn names(&self) -> Vec<FileName> {
        self.files.keys().copied().collect()
    }

    /// Removes all files, as an operator who deletes the folder.
    pub fn wipe(&mut self) {
        self.files.clear();
    }

    /// Syncs of files so far.
    pub fn syncs(&self) -> u64 {
        self.syncs
    }

    /// Does a part of it, synced nowhere; where it is one step, does it or does not.
    fn begin(&mut self, op: &Op, random: &mut dyn Rng) {
        match op {
            Op::Write { file, offset, data } => {
                let whole = data.concat();
                let part = whole.get(..part_of(whole.len(), random)).unwrap_or_default();
                if let Some(file) = self.files.get_mut(file) {
                    file.write(position(*offset), part);
                }
            }
            Op::Create { file, head, length } => {
                if coin(random) {
                    let linked = self.files.get(file).is_some_and(|file| file.linked);
                    let fresh = MemoryFile {
                        linked,
                        ..MemoryFile::default()
                    };
                    self.files.insert(*file, fresh);
                    let mut whole = head.to_vec();
                    whole.resize(position(*length), 0);
                    let part = whole.get(..part_of(whole.len(), random)).unwrap_or_default();
                    self.files.entry(*file).or_default().write(0, part);
                }
            }
            Op::Fill { file, from, to } => {
                let zeros = vec![0; part_of(position(to.saturating_sub(*from)), random)];
                if let Some(file) = self.files.get_mut(file) {
                    file.write(position(*from), &zeros);
                }
            }
            Op::Rename { file, head, .. } => {
                let part = head.get(..part_of(head.len(), random)).unwrap_or_default();
                if let Some(file) = self.files.get_mut(file) {
                    file.write(0, part);
                }
                if coin(random) {
                    // As below.
                    let _ = self.change(op);
                }
            }
            Op::Replace { .. } | Op::Remove { .. } => {
                if coin(random) {
                    // It fails only for want of room, and then it has not happened.
                    let _ = self.change(op);
                }
            }
            Op::Read { .. } | Op::List | Op::Volume => {}
        }
    }

    fn change(&mut self, op: &Op) -> Result<Outcome, DiskError> {
        if let Some(kind) = self.fail_next.take() {
            return Err(error(kind, op));
        }
        match op {
            Op::Write { file, offset, data } => {
                let whole = data.concat();
                self.reserve(*file, position(*offset) + whole.len(), op)?;
                let file = self
                    .files
                    .get_mut(file)
                    .ok_or_else(|| error(DiskErrorKind::Missing, op))?;
                file.write(position(*offset), &whole);
                if !self.skips_sync {
                    file.sync();
                }
            }
            Op::Create { file, head, length } => {
                self.reserve(*file, position(*length), op)?;
                let mut shown = head.to_vec();
                shown.resize(position(*length), 0);
                self.files.insert(*file, MemoryFile::durable(shown));
            }
            Op::Fill { file, from, to } => {
                self.reserve(*file, position(*to), op)?;
                let file = self
                    .files
                    .get_mut(file)
                    .ok_or_else(|| error(DiskErrorKind::Missing, op))?;
                file.write(position(*from), &vec![0; position(to.saturating_sub(*from))]);
                file.sync();
            }
            Op::Replace { file, data } => {
                self.reserve(*file, data.len(), op)?;
                self.files.insert(*file, MemoryFile::durable(data.to_vec()));
            }
            Op::Rename { file, head, to } => {
                let mut content = self
                    .files
                    .remove(file)
                    .ok_or_else(|| error(DiskErrorKind::Missing, op))?;
                content.write(0, head);
                content.sync();
                content.linked = true;
                self.files.insert(*to, content);
            }
            Op::Remove { file } => {
                self.files.remove(file);
            }
            Op::Read { .. } | Op::List | Op::Volume => {}
        }
        self.syncs += 1;
        Ok(Outcome::Done)
    }

    /// Whether the file may have that length.
    fn reserve(&self, file: FileName, length: usize, op: &Op) -> Result<(), DiskError> {
        let now = self.files.get(&file).map_or(0, |file| file.shown.len());
        let grows = length.saturating_sub(now) as u64;
        if grows > 0 && self.used_bytes() + grows > self.room_bytes {
            return Err(error(DiskErrorKind::Full, op));
        }
        Ok(())
    }

    fn read(&self, file: FileName, offset: u64, length: usize, op: &Op) -> Result<Bytes, DiskError> {
        let file = self
            .files
            .get(&file)
            .ok_or_else(|| error(DiskErrorKind::Missing, op))?;
        let start = position(offset).min(file.shown.len());
        let end = start.saturating_add(length).min(file.shown.len());
        Ok(Bytes::copy_from_slice(
            file.shown.get(start..end).unwrap_or_default(),
        ))
    }
}

impl Disk for MemoryDisk {
    fn execute(&mut self, op: &Op) -> Result<Outcome, DiskError> {
        match op {
            Op::Read { file, offset, length } => self.read(*file, *offset, *length, op).map(Outcome::Data),
            Op::List => {
                let info = |(name, file): (&FileName, &MemoryFile)| FileInfo {
                    name: name.to_string(),
                    bytes: file.shown.len() as u64,
                };
                Ok(Outcome::Files(self.files.iter().map(info).collect()))
            }
            Op::Volume => Ok(Outcome::Volume(self.volume_bytes)),
            change => self.change(change),
        }
    }
}

impl MemoryFile {
    fn durable(shown: Vec<u8>) -> Self {
        Self {
            durable_length: shown.len(),
            shown,
            unsynced: BTreeMap::new(),
            given_up: BTreeSet::new(),
            linked: true,
        }
    }

    fn write(&mut self, offset: usize, data: &[u8]) {
        if data.is_empty() {
            return;
        }
        let end = offset + data.len();
        for sector in offset / SECTOR..end.div_ceil(SECTOR) {
            let start = (sector * SECTOR).min(self.shown.len());
            let before = self
                .shown
                .get(start..(start + SECTOR).min(self.shown.len()))
                .unwrap_or_default();
            self.unsynced.entry(sector).or_insert_with(|| before.to_vec());
            self.given_up.remove(&sector);
        }
        if self.shown.len() < end {
            self.shown.resize(end, 0);
        }
        if let Some(part) = self.shown.get_mut(offset..end) {
            part.copy_from_slice(data);
        }
    }

    fn sync(&mut self) {
        let given_up = &self.given_up;
        self.unsynced.retain(|sector, _| given_up.contains(sector));
        self.durable_length = self.shown.len();
    }

    /// Keeps some of the sectors that were not synced, and what it must of the length. Whether it keeps one behind one that it
    /// does not keep.
    fn lose(&mut self, random: &mut dyn Rng) -> bool {
        let (mut lost, mut disordered) = (false, false);
        let mut length = if coin(random) {
            self.durable_length
        } else {
            self.shown.len()
        };
        // A disk that wrote none, or all but one, is as likely as one in between.
        let keeps = below(random, 5);
        let given_up = std::mem::take(&mut self.given_up);
        for (sector, before) in std::mem::take(&mut self.unsynced) {
            let keep = if given_up.contains(&sector) {
                false
            } else if keeps < 4 {
                below(random, 4) < keeps
            } else {
                below(random, 32) > 0
            };
            lost |= !keep;
            disordered |= keep && lost;
            let start = sector * SECTOR;
            let end = (start + SECTOR).min(self.shown.len());
            if keep {
                length = length.max(end);
            } else if let Some(part) = self.shown.get_mut(start..end) {
                part.fill(0);
                if let Some(part) = part.get_mut(..before.len()) {
                    part.copy_from_slice(&before);
                }
            }
        }
        self.shown.truncate(length);
        self.sync();
        self.linked = true;
        disordered
    }
}

fn error(kind: DiskErrorKind, op: &Op) -> DiskError {
    let what = match op {
        Op::Write { file, offset, .. } => format!("cannot write {file} at offset {offset}"),
        Op::Read { file, offset, .. } => format!("cannot read {file} at offset {offset}"),
        Op::Create { file, .. } => format!("cannot create {file}"),
        Op::Fill { file, from, .. } => format!("cannot fill {file} from offset {from}"),
        Op::Replace { file, .. } => format!("cannot replace {file}"),
        Op::Rename { file, to, .. } => format!("cannot make {file} {to}"),
        Op::Remove { file } => format!("cannot remove {file}"),
        Op::List => "cannot list the files".to_owned(),
        Op::Volume => "cannot tell the size of the volume".to_owned(),
    };
    DiskError {
        kind,
        message: format!("{what}: simulated ({kind:?})"),
    }
}

fn coin(random: &mut dyn Rng) -> bool {
    random.next_u32() & 1 == 0
}

/// So much of a write has happened: whole sectors.
fn part_of(length: usize, random: &mut dyn Rng) -> usize {
    (below(random, length.div_ceil(SECTOR) + 1) * SECTOR).min(length)
}

/// A number below `bound`.
fn below(random: &mut dyn Rng, bound: usize) -> usize {
    let bound = u64::try_from(bound.max(1)).unwrap_or(u64::MAX);
    usize::try_from(random.next_u64() % bound).unwrap_or(0)
}

fn position(offset: u64) -> usize {
    usize::try_from(offset).expect("a disk in memory is small")
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    const FILE: FileName = FileName::named("file");

    fn write(sector: u64, byte: u8) -> Op {
        Op::Write {
            file: FILE,
            offset: sector * 512,
            data: vec![vec![byte; SECTOR].into()],
        }
    }

    /// A later sync reports success for pages whose write has failed before: only writing them again puts them on disk.
    #[test]
    fn what_failed_to_be_written_is_not_written_by_a_later_sync() {
        for seed in 0..50 {
            let mut random = ChaCha8Rng::seed_from_u64(seed);
            let mut disk = MemoryDisk::new(1 << 20);
            let head = vec![1; SECTOR * 2].into();
            let length = 2 * SECTOR as u64;
            disk.execute(&Op::Create {
                file: FILE,
                head,
                length,
            })
            .unwrap();
            disk.fail(&write(0, 2), &mut random);
            disk.execute(&write(1, 3)).unwrap();
            let mut again = disk.clone();
            disk.power_failure(&[], &mut random);
            let content = disk.content(FILE).unwrap();
            assert_eq!((content[0], content[SECTOR]), (1, 3), "seed {seed}");

            again.execute(&write(0, 2)).unwrap();
            again.power_failure(&[], &mut random);
            assert_eq!(again.content(FILE).unwrap()[0], 2, "seed {seed}: written again");
        }
    }
}
