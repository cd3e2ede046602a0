//! `storeprimer`: writes the NATO alphabet into a store.

use std::process::ExitCode;

use clap::Parser;
use thrifty_p2p::cli::{self, ClientOptions};

/// The words, in the order of their letters.
const WORDS: [&str; 26] = [
    "Alpha", "Bravo", "Charlie", "Delta", "Echo", "Foxtrot", "Golf", "Hotel", "India", "Juliet",
    "Kilo", "Lima", "Mike", "November", "Oscar", "Papa", "Quebec", "Romeo", "Sierra", "Tango",
    "Uniform", "Victor", "Whiskey", "X-ray", "Yankee", "Zulu",
];

/// Writes the 26 letters A to Z with their words in the NATO alphabet
#[derive(Parser)]
#[command(name = env!("CARGO_BIN_NAME"), version, disable_help_flag = true, after_help = cli::STATUSES)]
struct Options {
    #[command(flatten)]
    client: ClientOptions,
}

fn main() -> ExitCode {
    cli::run(true, |options: Options| {
        let store = options.client.store()?;
        let mut words = WORDS.iter().map(|word| word.as_bytes());
        words.try_for_each(|word| store.put(&word[..1], word))
    })
}
