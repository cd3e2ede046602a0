//! The changes of files that a process made, from a trace of its system calls by strace.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// A change, or a sync.
#[derive(Debug, Clone)]
pub enum Event {
    Create(PathBuf),
    Write(PathBuf, u64, Vec<u8>),
    /// At the end of the file.
    Append(PathBuf, Vec<u8>),
    SetLength(PathBuf, u64),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
    CreateDirectory(PathBuf),
    /// All changes of the file or the directory that ended before the event of that number are on
    /// disk.
    Sync(PathBuf, usize),
    /// Acknowledged.
    Ack(String),
}

/// The calls that are traced. Others that change files must not occur.
pub const CALLS: &str = "openat,close,write,writev,pwrite64,lseek,ftruncate,fsync,fdatasync,rename,\
    renameat,renameat2,unlink,unlinkat,rmdir,mkdir,fcntl,fallocate,copy_file_range,sendfile,link,\
    linkat,creat,truncate,pwritev,sync_file_range,msync,dup,dup2,dup3";

struct Open {
    path: PathBuf,
    offset: u64,
    appends: bool,
}

/// The events of a trace in the directory, in the order in which the calls ended. The writes to the
/// file `acks` are acknowledgements.
pub fn events(trace: &str, directory: &Path, acks: &Path) -> Vec<Event> {
    let mut events: Vec<Event> = Vec::new();
    let mut open: HashMap<i64, Open> = HashMap::new();
    // By thread: the start of a call, and the number of events before.
    let mut unfinished: HashMap<&str, (String, usize)> = HashMap::new();
    for line in trace.lines() {
        let Some((thread, call)) = line.split_once(' ') else {
            continue;
        };
        let call = call.trim_start();
        if let Some(start) = call.strip_suffix(" <unfinished ...>") {
            unfinished.insert(thread, (start.to_owned(), events.len()));
            continue;
        }
        let (call, began) = match call.strip_prefix("<... ") {
            Some(rest) => {
                let rest = rest.split_once(" resumed>").expect("the rest of a call").1;
                let (start, began) = unfinished.remove(thread).expect("the start of a call");
                (start + rest, began)
            }
            None => (call.to_owned(), events.len()),
        };
        let Some((call, result)) = call.rsplit_once(" = ") else {
            continue;
        };
        let result = result
            .split(' ')
            .next()
            .and_then(|result| result.parse::<i64>().ok());
        let Some(result) = result.filter(|result| *result >= 0) else {
            continue;
        };
        let (name, arguments) = call.split_once('(').expect("a call");
        let strings = strings(arguments);
        let path = |nth: usize| PathBuf::from(String::from_utf8_lossy(&strings[nth]).into_owned());
        let number = |text: &str| text.trim().trim_end_matches(')').parse::<i64>().ok();
        let words: Vec<&str> = arguments.split(", ").collect();
        let file = number(words[0]).unwrap_or(-1);
        match name {
            "openat" => {
                let path = path(0);
                let has = |flag| arguments.contains(flag);
                if !path.starts_with(directory) && path != acks {
                    open.remove(&result);
                    continue;
                }
                if has("O_CREAT") && path != acks {
                    events.push(Event::Create(path.clone()));
                }
                if has("O_TRUNC") && path != acks {
                    events.push(Event::SetLength(path.clone(), 0));
                }
                let appends = has("O_APPEND");
                open.insert(
                    result,
                    Open {
                        path,
                        offset: 0,
                        appends,
                    },
                );
            }
            "close" => drop(open.remove(&file)),
            "fcntl" if arguments.contains("F_DUPFD") => {
                assert!(
                    !open.contains_key(&file),
                    "a duplicate of {}",
                    open[&file].path.display()
                );
            }
            "fcntl" => (),
            "lseek" => {
                if let Some(open) = open.get_mut(&file) {
                    open.offset = result as u64;
                }
            }
            "write" | "writev" | "pwrite64" => {
                let Some(open) = open.get_mut(&file) else {
                    continue;
                };
                let mut data = strings.concat();
                data.truncate(result as usize);
                if open.path == acks {
                    events.push(Event::Ack(String::from_utf8(data).expect("a line")));
                } else if open.appends {
                    events.push(Event::Append(open.path.clone(), data));
                } else {
                    let at = match name {
                        "pwrite64" => {
                            words.last().and_then(|at| number(at)).expect("an offset") as u64
                        }
                        _ => open.offset,
                    };
                    open.offset = at + data.len() as u64;
                    events.push(Event::Write(open.path.clone(), at, data));
                }
            }
            "ftruncate" => {
                if let Some(open) = open.get(&file) {
                    let length = number(words[1]).expect("a length") as u64;
                    events.push(Event::SetLength(open.path.clone(), length));
                }
            }
            "fsync" | "fdatasync" => {
                if let Some(open) = open.get(&file) {
                    events.push(Event::Sync(open.path.clone(), began));
                }
            }
            "rename" | "renameat" | "renameat2" => events.push(Event::Rename(path(0), path(1))),
            "unlink" | "unlinkat" | "rmdir" => events.push(Event::Remove(path(0))),
            "mkdir" => events.push(Event::CreateDirectory(path(0))),
            _ => panic!("a call that is not understood: {name}"),
        }
    }
    events.retain(|event| match event {
        Event::Remove(path) | Event::CreateDirectory(path) => path.starts_with(directory),
        Event::Rename(from, _) => from.starts_with(directory),
        _ => true,
    });
    events
}

/// The quoted strings, which have all bytes as hexadecimal numbers.
fn strings(arguments: &str) -> Vec<Vec<u8>> {
    let quoted = arguments.split('"').skip(1).step_by(2);
    let bytes = |text: &str| -> Vec<u8> {
        let bytes = text.split("\\x").skip(1);
        bytes
            .map(|byte| u8::from_str_radix(byte, 16).expect("a byte"))
            .collect()
    };
    quoted.map(bytes).collect()
}
