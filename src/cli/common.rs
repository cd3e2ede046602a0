//! The options that every program has.

use ::log::LevelFilter;
use clap::{Args, Command, ValueEnum};
use clap_complete::Shell;
use clap_mangen::Man;

use super::log::{self, Format};

/// How the lines of a log are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    /// Time, level and message.
    Text,
    /// A JSON object with `time`, `level` and `message`.
    Json,
}

// The options of every program. A doc comment would describe each program in its `--help`.
#[derive(Debug, Args)]
pub struct CommonOptions {
    /// Log details too, on stderr; RUST_LOG overrides this
    #[arg(short, long, help_heading = "Output")]
    verbose: bool,

    /// How log lines are written; NO_COLOR turns colors off
    #[arg(
        long,
        help_heading = "Output",
        value_enum,
        value_name = "FORMAT",
        default_value = "text"
    )]
    log_format: LogFormat,

    /// Print completions of this program for a shell, and exit
    #[arg(long, help_heading = "Output", exclusive = true, value_name = "SHELL")]
    completions: Option<Shell>,

    /// Print the man page of this program (roff), and exit
    #[arg(long, help_heading = "Output", exclusive = true)]
    man_page: bool,
}

impl CommonOptions {
    /// Starts logging. A `quiet` program logs warnings and errors only, without time and level, unless it is verbose.
    pub fn start_log(&self, quiet: bool) {
        let level = match (self.verbose, quiet) {
            (true, _) => LevelFilter::Debug,
            (false, true) => LevelFilter::Warn,
            (false, false) => LevelFilter::Info,
        };
        log::start(
            level,
            match self.log_format {
                LogFormat::Json => Format::Json,
                LogFormat::Text if quiet && !self.verbose => Format::Message,
                LogFormat::Text => Format::Full,
            },
        );
    }

    /// The completions or the man page of the program, if they are asked for.
    pub fn describe(&self, mut command: Command) -> Option<Vec<u8>> {
        let mut text = Vec::new();
        if let Some(shell) = self.completions {
            let name = command.get_name().to_owned();
            clap_complete::generate(shell, &mut command, name, &mut text);
        } else if self.man_page {
            // A Vec takes all bytes.
            Man::new(command).render(&mut text).ok()?;
        } else {
            return None;
        }
        Some(text)
    }
}
