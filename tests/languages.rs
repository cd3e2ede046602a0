//! Do the interfaces give stubs that compile in every language that the Thrift compiler knows?
//!
//! A field named by a reserved word of one language breaks that language's stubs only. Stubs are
//! generated for each; those whose tools are installed are compiled, checked or imported. What
//! is skipped is named.

use std::path::Path;
use std::process::{Command, Stdio};

/// Is the program installed, with what those arguments need?
fn has(program: &str, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null());
    command.output().is_ok_and(|output| output.status.success())
}

/// Generates the stubs of a language in `folder`.
fn generate(language: &str, folder: &Path) {
    let interface = Path::new(env!("CARGO_MANIFEST_DIR")).join("thrift/diststore.thrift");
    let mut compiler = Command::new("thrift");
    compiler.args(["-r", "--gen", language, "-out"]);
    let output = compiler.arg(folder).arg(interface).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{language}: {errors}");
    assert!(std::fs::read_dir(folder).unwrap().count() > 0, "{language}");
}

/// How the stubs of a language are checked: a test of its tools, and a shell script that is run
/// in their folder and fails if they do not compile.
struct Check {
    language: &'static str,
    tool: (&'static str, &'static [&'static str]),
    script: &'static str,
}

/// Without the Thrift library for Java, `javac` still parses all files before it resolves names:
/// an error of syntax is reported alone.
const JAVA: &str = "javac -proc:none -d out *.java >log 2>&1 || true; \
    ! grep -E 'error: ' log | grep -vE 'package org.apache.thrift|package javax.annotation|\
    cannot find symbol|static import only|method does not override|does not exist'";

const CHECKS: [Check; 8] = [
    Check {
        language: "cpp",
        tool: (
            "sh",
            &[
                "-c",
                "echo '#include <thrift/TBase.h>' | g++ -fsyntax-only -x c++ -",
            ],
        ),
        script: "for f in *_types.cpp Base.cpp Locator.cpp Store.cpp; do g++ -fsyntax-only $f; done",
    },
    Check {
        language: "java",
        tool: ("javac", &["-version"]),
        script: JAVA,
    },
    Check {
        language: "py",
        tool: ("python3", &["--version"]),
        script: "python3 -m compileall -q .",
    },
    Check {
        language: "js:node",
        tool: ("node", &["--version"]),
        script: "for f in *.js; do node --check $f; done",
    },
    Check {
        language: "go",
        tool: ("gofmt", &["-h"]),
        script: "gofmt -e -l . >/dev/null",
    },
    Check {
        language: "rb",
        tool: ("ruby", &["--version"]),
        script: "for f in *.rb; do ruby -c $f; done",
    },
    Check {
        language: "php",
        tool: ("php", &["--version"]),
        script: "find . -name '*.php' | while read f; do php -l $f; done",
    },
    Check {
        language: "netstd",
        tool: ("csc", &["-version"]),
        script: "csc -langversion:8 -target:library *.cs 2>&1 | { ! grep -E 'error CS1[0-9]{3}'; }",
    },
];

#[test]
fn stubs_of_every_language_are_generated_and_compile_where_its_tools_are_installed() {
    if !has("thrift", &["--version"]) {
        eprintln!("skipped: needs the Thrift compiler");
        return;
    }
    for check in &CHECKS {
        let folder = tempfile::tempdir().unwrap();
        generate(check.language, folder.path());
        if !has(check.tool.0, check.tool.1) {
            let language = check.language;
            eprintln!("skipped: the stubs for {language} are generated, not compiled: no tools");
            continue;
        }
        let mut shell = Command::new("bash");
        shell.args(["-euo", "pipefail", "-c", check.script]);
        let output = shell.current_dir(folder.path()).output().unwrap();
        assert!(output.status.success(), "{}: {output:?}", check.language);
    }
}
