//! `Entered`: a thread of the test in a network namespace.
//!
//! Sockets that the thread opens meanwhile stay in the namespace, and threads and processes that it
//! starts. Other threads of the test are where they were.

use std::fs::File;
use std::marker::PhantomData;
use std::path::Path;
use std::sync::MutexGuard;

use nix::sched::{CloneFlags, setns};

use super::namespace::Namespace;

/// This thread is in a namespace. When dropped, the thread is where it was before.
pub struct Entered {
    before: File,
    /// As a lock, this stays with its thread.
    thread: PhantomData<MutexGuard<'static, ()>>,
}

impl Entered {
    /// Moves this thread into a namespace.
    pub fn enter(namespace: &Namespace) -> Result<Entered, String> {
        let open = |path: &Path| File::open(path).map_err(|e| format!("{}: {e}", path.display()));
        let before = open(Path::new("/proc/thread-self/ns/net"))?;
        let target = open(&Path::new("/run/netns").join(namespace.name()))?;
        let failed = |e| format!("cannot enter {}: {e}", namespace.name());
        setns(target, CloneFlags::CLONE_NEWNET).map_err(failed)?;
        Ok(Entered {
            before,
            thread: PhantomData,
        })
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        setns(&self.before, CloneFlags::CLONE_NEWNET).expect("the namespace before still exists");
    }
}
