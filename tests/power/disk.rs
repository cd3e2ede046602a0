//! A disk after a power cut: what was synced, and a random part of the rest.
//!
//! Of a file that was not synced since, any pages of the last writes are there, in any order. Of a
//! directory, the first ones of the last changes.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use super::trace::Event;

/// Bytes that a disk writes as a whole.
const PAGE: usize = 512;

/// The most zeros at the end of a file.
const ZEROS: u64 = 10_000;

/// The disk at one moment.
#[derive(Default)]
pub struct Disk {
    files: Vec<File>,
    /// The files in each directory, as they are on disk.
    directories: BTreeMap<PathBuf, Names>,
    /// The files by their names, as the system shows them.
    shown: HashMap<PathBuf, usize>,
}

#[derive(Default, Clone)]
struct File {
    synced: Contents,
    /// Changes since, with the numbers of the events.
    pending: Vec<(usize, FileChange)>,
    /// The length with all changes.
    length: u64,
}

/// What a file has: these bytes, then zeros up to its length.
#[derive(Default, Clone)]
struct Contents {
    bytes: Vec<u8>,
    length: u64,
}

#[derive(Clone)]
enum FileChange {
    Write(u64, Vec<u8>),
    SetLength(u64),
}

#[derive(Default, Clone)]
struct Names {
    synced: BTreeMap<PathBuf, usize>,
    pending: Vec<(usize, NameChange)>,
}

#[derive(Clone)]
enum NameChange {
    Add(PathBuf, usize),
    Remove(PathBuf),
    Rename(PathBuf, PathBuf, usize),
}

impl File {
    fn change(&mut self, number: usize, change: FileChange) {
        self.length = match &change {
            FileChange::Write(at, data) => self.length.max(at + data.len() as u64),
            FileChange::SetLength(length) => *length,
        };
        self.pending.push((number, change));
    }
}

impl Disk {
    /// Takes over the event of that number.
    pub fn take(&mut self, number: usize, event: &Event) {
        match event {
            Event::Create(path) => {
                if !self.shown.contains_key(path) {
                    let file = self.files.len();
                    self.files.push(File::default());
                    self.shown.insert(path.clone(), file);
                    self.name(path, number, NameChange::Add(path.clone(), file));
                }
            }
            Event::Write(path, at, data) => {
                let change = FileChange::Write(*at, data.clone());
                self.file(path).change(number, change);
            }
            Event::Append(path, data) => {
                let file = self.file(path);
                file.change(number, FileChange::Write(file.length, data.clone()));
            }
            Event::SetLength(path, length) => {
                self.file(path)
                    .change(number, FileChange::SetLength(*length));
            }
            Event::Rename(from, to) => {
                assert_eq!(from.parent(), to.parent());
                let file = self.shown.remove(from).expect("a file");
                self.shown.insert(to.clone(), file);
                self.name(
                    to,
                    number,
                    NameChange::Rename(from.clone(), to.clone(), file),
                );
            }
            Event::Remove(path) => {
                self.shown.remove(path);
                self.name(path, number, NameChange::Remove(path.clone()));
            }
            // Empty directories do no harm: those of files that are there are made for them.
            Event::CreateDirectory(path) => drop(self.directories.entry(path.clone()).or_default()),
            Event::Sync(path, began) => self.sync(path, *began),
            Event::Ack(_) => (),
        }
    }

    fn file(&mut self, path: &Path) -> &mut File {
        let file = self.shown.get(path);
        &mut self.files[*file.unwrap_or_else(|| panic!("no file {}", path.display()))]
    }

    fn name(&mut self, path: &Path, number: usize, change: NameChange) {
        let parent = path.parent().expect("a directory").to_owned();
        let names = self.directories.entry(parent).or_default();
        names.pending.push((number, change));
    }

    fn sync(&mut self, path: &Path, began: usize) {
        if let Some(file) = self.shown.get(path) {
            let file = &mut self.files[*file];
            let count = file
                .pending
                .iter()
                .take_while(|(number, _)| *number < began)
                .count();
            for (_, change) in file.pending.drain(..count) {
                apply(&mut file.synced, &change);
            }
        } else if let Some(names) = self.directories.get_mut(path) {
            let count = names
                .pending
                .iter()
                .take_while(|(number, _)| *number < began)
                .count();
            for (_, change) in names.pending.drain(..count) {
                rename(&mut names.synced, change);
            }
        }
    }

    /// Writes what is there after a power cut to `to`, in place of `from`. `random` returns numbers
    /// below its argument.
    pub fn cut(&self, from: &Path, to: &Path, random: &mut impl FnMut(usize) -> usize) {
        let moved = |path: &Path| to.join(path.strip_prefix(from).expect("in the directory"));
        for (directory, names) in &self.directories {
            fs::create_dir_all(moved(directory)).unwrap();
            let mut there = names.synced.clone();
            let kept = random(names.pending.len() + 1);
            for (_, change) in names.pending[..kept].iter().cloned() {
                rename(&mut there, change);
            }
            for (path, file) in there {
                write_sparsely(&moved(&path), &self.files[file].after_cut(random));
            }
        }
    }
}

impl File {
    fn after_cut(&self, random: &mut impl FnMut(usize) -> usize) -> Contents {
        let mut contents = self.synced.clone();
        // None, some, or all of it.
        let chance = random(5);
        for (_, change) in &self.pending {
            match change {
                FileChange::SetLength(_) if random(4) < chance => apply(&mut contents, change),
                FileChange::SetLength(_) => (),
                FileChange::Write(at, data) => {
                    let first = PAGE - *at as usize % PAGE;
                    let mut offset = 0;
                    while offset < data.len() {
                        let length = if offset == 0 { first } else { PAGE };
                        let end = data.len().min(offset + length);
                        if random(4) < chance {
                            let part = data[offset..end].to_vec();
                            apply(&mut contents, &FileChange::Write(at + offset as u64, part));
                        }
                        offset = end;
                    }
                }
            }
        }
        contents
    }
}

fn apply(contents: &mut Contents, change: &FileChange) {
    let bytes = &mut contents.bytes;
    match change {
        FileChange::SetLength(length) => {
            bytes.truncate(*length as usize);
            contents.length = *length;
        }
        FileChange::Write(at, data) => {
            let end = *at as usize + data.len();
            contents.length = contents.length.max(end as u64);
            if bytes.len() < end {
                bytes.resize(end, 0);
            }
            bytes[*at as usize..end].copy_from_slice(data);
        }
    }
}

fn rename(names: &mut BTreeMap<PathBuf, usize>, change: NameChange) {
    match change {
        NameChange::Add(path, file) => drop(names.insert(path, file)),
        NameChange::Remove(path) => drop(names.remove(&path)),
        NameChange::Rename(from, to, file) => {
            names.remove(&from);
            names.insert(to, file);
        }
    }
}

/// Writes a file. The zeros at its end take no room.
fn write_sparsely(path: &Path, contents: &Contents) {
    fs::write(path, &contents.bytes).unwrap();
    // Some zeros are as good as many, and are read faster.
    let length = contents.length.min(contents.bytes.len() as u64 + ZEROS);
    let file = fs::File::options().write(true).open(path).unwrap();
    file.set_len(length).unwrap();
}
