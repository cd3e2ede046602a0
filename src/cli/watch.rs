//! [`watch`]: shows something again and again, until `q` is pressed.
//!
//! On a terminal it is redrawn in place. Otherwise each look is one line.

use std::collections::VecDeque;
use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};

use super::stdout;
use crate::error::Error;

/// The pause between two looks, in milliseconds.
const PAUSE: u16 = 1_000;

/// The rates in the sparkline.
const RATES: usize = 40;

const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// What is seen at one look.
pub struct View {
    /// All of it, for a terminal.
    pub text: String,
    /// One line of it.
    pub line: String,
    /// Calls so far, whose rate is shown, if they are known.
    pub calls: Option<u64>,
}

/// The terminal, without echo and lines. When dropped, it is as it was.
struct Terminal(Termios);

impl Terminal {
    /// None if stdin or stdout is no terminal.
    fn open() -> Option<Terminal> {
        let stdin = io::stdin();
        if !stdin.is_terminal() || !io::stdout().is_terminal() {
            return None;
        }
        let before = tcgetattr(&stdin).ok()?;
        let mut raw = before.clone();
        // Without ISIG, ctrl-C is a byte too, so that the terminal is restored.
        raw.local_flags &= !(LocalFlags::ICANON | LocalFlags::ECHO | LocalFlags::ISIG);
        tcsetattr(&stdin, SetArg::TCSANOW, &raw).ok()?;
        Some(Terminal(before))
    }

    /// Waits for the pause. Was `q` or ctrl-C pressed?
    fn is_quit(&self) -> bool {
        let stdin = io::stdin();
        let mut polled = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
        let mut keys = [0; 64];
        let has_keys = poll(&mut polled, PAUSE).is_ok_and(|ready| ready > 0);
        let read = if has_keys {
            stdin.lock().read(&mut keys)
        } else {
            Ok(0)
        };
        has_keys && !matches!(read, Ok(1..) if !keys.iter().any(|key| b"qQ\x03\x04".contains(key)))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin(), SetArg::TCSANOW, &self.0);
    }
}

/// Shows what `look` sees, once a second, until `q` is pressed or nobody reads stdout any more.
///
/// # Errors
/// Those of `look`; stdout cannot be written.
pub fn watch(mut look: impl FnMut() -> Result<View, Error>) -> Result<(), Error> {
    let terminal = Terminal::open();
    let mut rates = VecDeque::new();
    let mut before: Option<(Instant, u64)> = None;
    loop {
        let view = look()?;
        let now = Instant::now();
        if let (Some((at, last)), Some(calls)) = (before, view.calls) {
            rates.push_back(calls.saturating_sub(last) as f64 / (now - at).as_secs_f64());
            rates.drain(..rates.len().saturating_sub(RATES));
        }
        before = view.calls.map(|calls| (now, calls));
        let rate = rates.back().map(|rate| format!("{rate:.0} calls/s"));
        let rate = rate.unwrap_or_default();
        let written = if terminal.is_some() {
            let spark = sparkline(rates.make_contiguous());
            let text = format!("{}{rate} {spark}\nq ends\n", view.text);
            // From the top; each line, and the screen, is cleared behind what is written.
            let text = text.replace('\n', "\x1b[K\r\n");
            write!(stdout()?, "\x1b[H{text}\x1b[J")
        } else {
            writeln!(stdout()?, "{}  {rate}", view.line)
        };
        match written.and_then(|()| stdout_flushed()) {
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            written => written.map_err(Error::Io)?,
        }
        match &terminal {
            Some(terminal) if terminal.is_quit() => return Ok(()),
            Some(_) => (),
            None => std::thread::sleep(Duration::from_millis(PAUSE.into())),
        }
    }
}

fn stdout_flushed() -> io::Result<()> {
    io::stdout().flush()
}

/// A bar for each rate, the largest one full.
fn sparkline(rates: &[f64]) -> String {
    let largest = rates.iter().copied().fold(1.0, f64::max);
    let bar = |rate: &f64| BARS[(rate / largest * (BARS.len() - 1) as f64).round() as usize];
    rates.iter().map(bar).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sparkline_has_a_bar_for_each_rate() {
        assert_eq!(sparkline(&[]), "");
        assert_eq!(sparkline(&[0.0, 50.0, 100.0]), "▁▅█");
        assert_eq!(sparkline(&[0.0; 3]), "▁▁▁");
    }
}
