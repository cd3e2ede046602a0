//! Churn: processes join, restart, leave, crash, hang and continue.

use super::process::{Health, Id};
use super::schedule::{ADDRESSES, Schedule, address};
use super::world::World;

impl Schedule {
    /// One of these things happens.
    pub fn churn(&self) {
        let what = self.net.borrow_mut().rng.below(100);
        match what {
            0..30 => self.join_one_or_two(),
            30..45 => self.leave_one(),
            45..70 => self.crash_one(),
            70..83 => self.hang_one(),
            83..86 => self.isolate_one(),
            _ => self.resume_one(),
        }
    }

    /// One process joins, or two at once. Where one has died, it is a restart.
    fn join_one_or_two(&self) {
        let how_many = 1 + usize::from(self.net.borrow_mut().once_in(3));
        for _ in 0..how_many {
            let mut world = self.net.borrow_mut();
            let free: Vec<u16> = (0..ADDRESSES)
                .filter(|number| world.at(&address(*number)).is_none())
                .collect();
            let members = world.members();
            let (Some(number), Some(peer)) = (world.choose(&free), world.choose(&members)) else {
                return;
            };
            let before = world.which(|process| process.location == address(number));
            world.count(if before.is_empty() {
                "joins"
            } else {
                "restarts"
            });
            let replicas = world.once_in(2).then_some(world.replicas);
            let id = world.start(address(number), replicas);
            drop(world);
            self.join(id, peer, false);
        }
    }

    fn leave_one(&self) {
        let mut world = self.net.borrow_mut();
        let members = world.members();
        if members.len() < 2 {
            return;
        }
        if let Some(id) = world.choose(&members)
            && world.processes[id].snapshot().live.len() > 1
        {
            // The last one that others have not declared down would end with all there is.
            world.log_process("leaves", id);
            world.leave(id);
        }
    }

    fn crash_one(&self) {
        let mut world = self.net.borrow_mut();
        let running = world.running();
        if let Some(id) = world.choose(&running)
            && world.may_die(id)
        {
            world.log_process("crashes", id);
            world.end(id);
            world.count("crashes");
        }
    }

    /// A process stops. Others may declare it down, as if it had died.
    fn hang_one(&self) {
        let mut world = self.net.borrow_mut();
        let running = world.which(|p| p.health == Health::Running && p.has_joined);
        if let Some(id) = world.choose(&running) {
            let may_be_declared_down = world.once_in(2) && world.may_die(id);
            world.log_process("hangs", id);
            world.processes[id].health = Health::Hung {
                may_be_declared_down,
            };
            world.count(if may_be_declared_down {
                "declared down while alive"
            } else {
                "hangs"
            });
        }
    }

    fn isolate_one(&self) {
        let mut world = self.net.borrow_mut();
        let members = world.members();
        if let Some(id) = world.choose(&members) {
            world.isolate(id);
        }
    }

    fn resume_one(&self) {
        let mut world = self.net.borrow_mut();
        let hung = world.which(|process| matches!(process.health, Health::Hung { .. }));
        if let Some(id) = world.choose(&hung) {
            world.resume(id);
        }
    }
}

impl World {
    /// If all is settled, as many processes may die from now on as there are copies but one.
    pub fn settle_if_all_is(&mut self) {
        if self.is_settled() {
            self.deaths = 0;
            self.base = self.members().into_iter().collect();
            self.tolerated = self.replicas.min(self.base.len()) - 1;
        }
        self.forget_stale_writes();
    }

    /// When all have the same placement and no client is active, no process writes by another
    /// placement any more.
    fn forget_stale_writes(&mut self) {
        let joined = self.which(|p| p.health != Health::Ended && p.has_joined);
        let mut placements: Vec<u64> = joined
            .iter()
            .map(|id| self.processes[*id].routing.current().id())
            .collect();
        placements.dedup();
        if placements.len() == 1 && !self.tasks.iter().any(|task| task.owner.is_none()) {
            for id in joined {
                self.processes[id].has_stale_write = false;
            }
        }
    }

    /// Is one more death, of this process, within what is promised? Counts it.
    fn may_die(&mut self, id: Id) -> bool {
        let is_last = !self
            .members()
            .into_iter()
            .any(|other| other != id && self.base.contains(&other));
        if is_last {
            return false;
        }
        if !self.is_relied_on(id) {
            self.count("deaths of joiners");
            return true;
        }
        let is_tolerated = self.deaths < self.tolerated;
        self.deaths += usize::from(is_tolerated);
        is_tolerated
    }
}
