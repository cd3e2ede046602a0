//! `Histogram`: how often which time was taken, in little memory however long a run is.
//!
//! Times up to 255 ns have a cell each; from there on each doubling has 128 cells, so
//! that a time is known to better than one part in 128. All times that can be are 59 kB.

/// Each doubling has two to the power of this many cells.
const BITS: u32 = 7;

/// The cells that 64 bits need.
const CELLS: usize = ((u64::BITS - BITS + 1) as usize) << BITS;

/// Times in nanoseconds, to better than one part in 128; the longest is exact.
#[derive(Debug, Clone)]
pub struct Histogram {
    cells: Vec<u64>,
    count: u64,
    longest: u64,
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram {
            cells: vec![0; CELLS],
            count: 0,
            longest: 0,
        }
    }
}

impl Histogram {
    /// Adds a time.
    pub fn add(&mut self, nanos: u64) {
        self.cells[cell_of(nanos)] += 1;
        self.count += 1;
        self.longest = self.longest.max(nanos);
    }

    /// Adds all times of another one.
    pub fn merge(&mut self, other: &Histogram) {
        let cells = self.cells.iter_mut().zip(&other.cells);
        cells.for_each(|(cell, more)| *cell += more);
        self.count += other.count;
        self.longest = self.longest.max(other.longest);
    }

    /// How many times there are.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// A time that this share of them, from 0 to 1, did not exceed; 0 if there are none.
    pub fn percentile(&self, share: f64) -> u64 {
        let wanted = ((self.count as f64 * share).ceil() as u64).max(1);
        let mut met = 0;
        let reached = self.cells.iter().position(|count| {
            met += count;
            met >= wanted
        });
        reached.map_or(0, |cell| end_of(cell).min(self.longest))
    }
}

fn cell_of(nanos: u64) -> usize {
    let shift = (u64::BITS - nanos.leading_zeros()).saturating_sub(BITS + 1);
    ((shift as usize) << BITS) + (nanos >> shift) as usize
}

/// The longest time in a cell.
fn end_of(cell: usize) -> u64 {
    let shift = (cell >> BITS).saturating_sub(1);
    let begin = ((cell - (shift << BITS)) as u64) << shift;
    begin + ((1 << shift) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_has_a_cell_whose_end_is_close_above_it() {
        let times = (0..64).flat_map(|bit| [(1u64 << bit) - 1, 1 << bit, (1 << bit) / 3 * 5]);
        for time in times.chain([u64::MAX]) {
            let end = end_of(cell_of(time));
            assert!(time <= end && end - time <= time / 128, "{time} ends {end}");
        }
        assert_eq!(cell_of(u64::MAX), CELLS - 1);
    }

    #[test]
    fn percentiles_are_those_of_the_sorted_times() {
        let mut whole = Histogram::default();
        for half in [(1..=500), (501..=1000)] {
            let mut times = Histogram::default();
            half.for_each(|micros| times.add(micros * 1000));
            whole.merge(&times);
        }
        for (share, micros) in [(0.5, 500), (0.99, 990), (0.999, 999), (1.0, 1000)] {
            let found = whole.percentile(share);
            assert!(
                (micros * 1000..=micros * 1008).contains(&found),
                "{share} at {found}"
            );
        }
        assert_eq!(whole.percentile(1.0), 1_000_000, "the longest is exact");
        assert_eq!(Histogram::default().percentile(0.5), 0);
    }
}
