//! Do the programs handle files, closed streams, timeouts and logs as their `--help` says?

mod common;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use common::{NodeProcess, ended, program, run, run_with_input};
use thrifty_p2p::hash_ring::point;

const PROGRAMS: [&str; 13] = [
    "location",
    "storeserver",
    "storeput",
    "storeget",
    "storedel",
    "storeprimer",
    "storetest",
    "locationstatus",
    "storestatus",
    "storeload",
    "storedump",
    "storelist",
    "storebench",
];

/// The stdout of a program that has ended with this status.
fn printed(output: Output, status: i32) -> String {
    let (code, stderr) = ended(&output);
    assert_eq!(code, Some(status), "{stderr}");
    String::from_utf8(output.stdout).unwrap()
}

/// Runs a shell command in which `$p` is the path of a program, with `-h` and a node.
fn shell(name: &str, node: &NodeProcess, line: &str) -> Output {
    let mut shell = Command::new("sh");
    shell
        .args(["-c", line])
        .env("p", program(name))
        .env("n", node.at());
    shell.output().unwrap()
}

#[test]
fn a_program_whose_stdout_or_stdin_is_closed_exits_with_4_and_stores_nothing() {
    let node = NodeProcess::start_bootstrap("storeserver");
    printed(run("storeput", &["-h", node.at(), "a", "apple"]), 0);
    for (name, line, closed) in [
        ("storeget", "$p -h $n a >&-", "stdout is closed"),
        ("storestatus", "$p -h $n >&-", "stdout is closed"),
        ("storedump", "$p -h $n >&-", "stdout is closed"),
        ("storelist", "$p -h $n >&-", "stdout is closed"),
        ("storeput", "$p -h $n --stdin a <&-", "stdin is closed"),
        ("storeput", "$p -h $n a @- <&-", "stdin is closed"),
        ("storeload", "$p -h $n <&-", "stdin is closed"),
    ] {
        let (code, stderr) = ended(&shell(name, &node, line));
        assert_eq!(code, Some(4), "{line}: {stderr}");
        assert!(stderr.contains(closed), "{line}: {stderr}");
    }
    assert_eq!(
        printed(shell("storeget", &node, "$p -h $n a"), 0),
        "apple\n"
    );
    printed(shell("storeget", &node, "$p -h $n a >/dev/null"), 0);
    printed(shell("storeput", &node, "$p -h $n --stdin a </dev/null"), 0);
    assert_eq!(printed(shell("storeget", &node, "$p -h $n a"), 0), "\n");
}

#[test]
fn a_byte_order_mark_at_the_start_of_a_line_is_refused_and_a_dumped_one_is_loaded() {
    let node = NodeProcess::start_bootstrap("storeserver");
    let host = ["-h", node.at()];
    let load = |text: &str| run_with_input("storeload", &host, text.as_bytes());
    let (code, stderr) = ended(&load("a\t1\n\u{feff}b\t2\n"));
    assert_eq!(code, Some(2), "{stderr}");
    assert!(
        stderr.contains("line 2: there is a byte-order mark"),
        "{stderr}"
    );
    let mark = "\u{feff}";
    printed(run("storeput", &[&host[..], &[mark, mark]].concat()), 0);
    let dump = printed(run("storedump", &host), 0);
    printed(load(&dump), 0);
    let value = printed(run("storeget", &[&host[..], &[mark]].concat()), 0);
    assert_eq!(value, "\u{feff}\n");
}

#[test]
fn a_dump_of_several_nodes_is_in_the_order_of_the_ring() {
    let first = NodeProcess::start_bootstrap("storeserver");
    let _others = [(); 2].map(|()| NodeProcess::start("storeserver", &["-h", first.at()]));
    let lines: String = (0..3000).map(|n| format!("key{n}\t{n}\n")).collect();
    printed(
        run_with_input("storeload", &["-h", first.at()], lines.as_bytes()),
        0,
    );
    let dump = printed(run("storedump", &["-h", first.at()]), 0);
    let keys = dump.lines().map(|line| line.split_once('\t').unwrap().0);
    let points: Vec<u32> = keys.map(|key| point(key.as_bytes())).collect();
    assert_eq!(points.len(), 3000);
    assert!(points.is_sorted(), "a later line has a smaller point");
}

#[test]
fn a_write_that_depends_on_a_version_is_made_once_or_ends_with_5() {
    let node = NodeProcess::start_bootstrap("storeserver");
    let host = ["-h", node.at()];
    let call = |name: &str, arguments: &[&str]| run(name, &[&host[..], arguments].concat());
    let json = |key: &str| -> serde_json::Value {
        let status = i32::from(key == "missing");
        serde_json::from_str(&printed(call("storeget", &["--json", key]), status)).unwrap()
    };
    assert_eq!(json("missing")["version"], "0");
    printed(call("storeput", &["--if-absent", "a", "1"]), 0);
    let put = call("storeput", &["--if-absent", "a", "2"]);
    let held = json("a");
    let version = held["version"].as_str().unwrap();
    let (code, stderr) = ended(&put);
    assert_eq!((code, &held["value"]), (Some(5), &"1".into()));
    assert!(
        stderr.contains(&format!("a has version {version}")),
        "{stderr}"
    );

    printed(call("storeput", &["--if-version", version, "a", "2"]), 0);
    printed(call("storeput", &["--if-version", version, "a", "3"]), 5);
    printed(call("storedel", &["--if-version", version, "a"]), 5);
    let held = json("a");
    assert_eq!(held["value"], "2");
    let version = held["version"].as_str().unwrap();
    printed(call("storedel", &["--if-version", version, "a"]), 0);
    let again = call("storedel", &["--if-version", version, "a"]);
    assert!(ended(&again).1.contains("a has no value"));
    printed(again, 5);
    printed(call("storeput", &["--if-version", "0", "a", "3"]), 0);
    let both = ["--if-version", "0", "--if-absent", "a", "4"];
    printed(call("storeput", &both), 2);
}

#[test]
fn a_script_counts_with_conditional_writes() {
    let node = NodeProcess::start_bootstrap("storeserver");
    printed(run("storeput", &["-h", node.at(), "n", "0"]), 0);
    let line = r#"for i in 1 2 3 4 5; do
        until
            json=$($get -h $n --json n) || exit 9
            version=$(expr "$json" : '.*"version":"\([0-9]*\)"')
            value=$(expr "$json" : '.*"value":"\([0-9]*\)"')
            $p -h $n --if-version $version n $((value + 1)) 2>/dev/null
        do
            [ $? = 5 ] || exit 9
        done
    done"#;
    let count = || {
        let mut shell = Command::new("sh");
        let env = [("p", program("storeput")), ("get", program("storeget"))];
        shell.args(["-c", line]).envs(env).env("n", node.at());
        shell.status().unwrap().code()
    };
    let codes = thread::scope(|scope| {
        let both = [scope.spawn(count), scope.spawn(count)];
        both.map(|one| one.join().unwrap())
    });
    assert_eq!(codes, [Some(0), Some(0)]);
    assert_eq!(printed(run("storeget", &["-h", node.at(), "n"]), 0), "10\n");
}

#[test]
fn several_keys_are_read_from_arguments_and_from_a_file() {
    let node = NodeProcess::start_bootstrap("storeserver");
    let host = ["-h", node.at()];
    for (key, value) in [
        ("a", "apple"),
        ("b", "banana"),
        ("tab\there", "t"),
        ("", "empty"),
    ] {
        printed(run("storeput", &[&host[..], &[key, value]].concat()), 0);
    }
    let get = |arguments: &[&str], input: &[u8]| {
        run_with_input("storeget", &[&host[..], arguments].concat(), input)
    };
    assert_eq!(printed(get(&["a", "b"], b""), 0), "apple\nbanana\n");
    assert_eq!(printed(get(&["--raw", "a", "b"], b""), 0), "applebanana");
    let some = get(&["a", "no", "b"], b"");
    assert!(ended(&some).1.contains("there is no key no"));
    assert_eq!(printed(some, 1), "apple\n\nbanana\n");
    let from = get(&["b", "--keys-from", "-"], b"tab\\there\n\na");
    assert_eq!(printed(from, 0), "banana\nt\nempty\napple\n");
    let bad = get(&["--keys-from", "-"], b"a\nb\tc\n");
    assert!(
        ended(&bad).1.contains("line 2: there is a second tab"),
        "{bad:?}"
    );
    assert_eq!(printed(bad, 2), "", "nothing is read");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys");
    std::fs::write(&file, "a\n").unwrap();
    let from = get(&["--json", "--keys-from", file.to_str().unwrap()], b"");
    assert!(printed(from, 0).contains(r#""key":"a""#));
}

#[test]
fn a_value_is_read_from_a_file_and_two_at_signs_are_one() {
    let node = NodeProcess::start_bootstrap("storeserver");
    let host = ["-h", node.at()];
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("value");
    let bytes: Vec<u8> = (0..=255).cycle().take(1 << 20).collect();
    std::fs::write(&file, &bytes).unwrap();
    let put = |value: &str| run("storeput", &[&host[..], &["k", value]].concat());
    let get = || run("storeget", &[&host[..], &["--raw", "k"]].concat()).stdout;
    printed(put(&format!("@{}", file.display())), 0);
    assert!(get() == bytes, "another value was stored");
    for (given, stored) in [("@@home", "@home"), ("@@", "@"), ("a@b", "a@b")] {
        printed(put(given), 0);
        assert_eq!(get(), stored.as_bytes());
    }
    let (code, stderr) = ended(&put("@/no/such/file"));
    assert_eq!(code, Some(2), "{stderr}");
    assert!(stderr.contains("cannot read /no/such/file"), "{stderr}");
    std::fs::write(&file, vec![0; (16 << 20) + 1]).unwrap();
    let (code, stderr) = ended(&put(&format!("@{}", file.display())));
    assert_eq!(code, Some(2), "{stderr}");
    assert_eq!(get(), b"a@b");
}

#[test]
fn a_program_without_a_result_in_time_exits_with_4() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = silent.local_addr().unwrap().to_string();
    let began = Instant::now();
    let (code, stderr) = ended(&run("storeget", &["-h", &at, "--timeout", "1", "a"]));
    assert_eq!(code, Some(4), "{stderr}");
    assert!(stderr.contains("not done after 1s"), "{stderr}");
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
}

/// Passes connections on to a node. The first reply to a write is lost with its connection.
fn lossy(node: &NodeProcess) -> (String, Arc<AtomicBool>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap().to_string();
    let (target, has_lost) = (node.at().to_owned(), Arc::new(AtomicBool::new(false)));
    let lost = has_lost.clone();
    thread::spawn(move || {
        for client in listener.incoming() {
            let (client, server) = (client.unwrap(), TcpStream::connect(&target).unwrap());
            let lost = lost.clone();
            thread::spawn(move || pass(client, server, &lost));
        }
    });
    (at, has_lost)
}

/// Passes a request and then its reply on, again and again.
fn pass(mut client: TcpStream, mut server: TcpStream, has_lost: &AtomicBool) {
    let mut buffer = [0; 64 * 1024];
    while let Ok(length @ 1..) = client.read(&mut buffer) {
        let call = &buffer[..length];
        let is_write = call.windows(10).any(|name| name == b"write_many");
        server.write_all(call).unwrap();
        let Ok(length) = server.read(&mut buffer) else {
            return;
        };
        if is_write && !has_lost.swap(true, SeqCst) {
            client.shutdown(Shutdown::Both).unwrap();
            return;
        }
        client.write_all(&buffer[..length]).unwrap();
    }
}

#[test]
fn deleting_a_key_exits_with_0_although_the_first_reply_is_lost() {
    let node = NodeProcess::start_bootstrap("storeserver");
    printed(run("storeput", &["-h", node.at(), "a", "apple"]), 0);
    let (at, has_lost) = lossy(&node);
    printed(run("storedel", &["-h", &at, "a"]), 0);
    assert!(has_lost.load(SeqCst), "no reply was lost");
    printed(run("storedel", &["-h", node.at(), "a"]), 1);
}

#[test]
fn v_logs_details_and_a_json_log_has_one_object_a_line() {
    let json = |line: &str| -> serde_json::Value {
        serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))
    };
    let start = ["-p", "0", "--bootstrap", "-v", "--log-format", "json"];
    let node = NodeProcess::spawn("storeserver", &start);
    node.wait_for("Starting the server at ");
    let lines = node.lines();
    let started = json(lines.last().unwrap());
    let at = started["message"].as_str().unwrap();
    let at = at
        .strip_prefix("Starting the server at ")
        .unwrap()
        .trim_end_matches("...");
    let logged =
        |arguments: &[&str]| ended(&run("storeget", &[&["-h", at, "no"], arguments].concat())).1;
    assert_eq!(logged(&[]).lines().count(), 1);
    let line = json(logged(&["--log-format", "json"]).trim_end());
    assert_eq!(line["message"], "there is no key no");
    assert_eq!(line["level"], "ERROR");
    assert!(line["time"].as_str().unwrap().ends_with('Z'), "{line}");
    node.wait_for("\"level\":\"DEBUG\"");
    node.lines().iter().for_each(|line| drop(json(line)));
}

#[test]
fn no_color_turns_the_colors_of_a_terminal_off() {
    let node = NodeProcess::start_bootstrap("storeserver");
    let logged = |no_color: &str| {
        let mut terminal = Command::new("script");
        let command = format!("{} -v -h {} no", program("storeget"), node.at());
        terminal
            .args(["-qec", &command, "/dev/null"])
            .env("NO_COLOR", no_color);
        Some(String::from_utf8(terminal.output().ok()?.stdout).unwrap())
    };
    let (Some(colored), Some(plain)) = (logged(""), logged("1")) else {
        eprintln!("skipped: needs `script`, which gives a program a terminal");
        return;
    };
    assert!(colored.contains("\x1b["), "{colored:?}");
    assert!(
        plain.contains("there is no key") && !plain.contains("\x1b["),
        "{plain:?}"
    );
}

#[test]
fn the_install_script_installs_each_program_with_its_man_page_and_completions() {
    let folder = tempfile::tempdir().unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/install.sh");
    let built = Path::new(program("location")).parent().unwrap();
    let mut install = Command::new(script);
    let output = install
        .arg(folder.path())
        .env("PROGRAMS", built)
        .output()
        .unwrap();
    printed(output, 0);
    let read = |path: String| std::fs::read_to_string(folder.path().join(path)).unwrap();
    for name in PROGRAMS {
        assert!(folder.path().join("bin").join(name).exists(), "{name}");
        let help = printed(run(name, &["--help"]), 0);
        let manual = read(format!("share/man/man1/{name}.1")).replace('\\', "");
        assert!(
            manual.contains(".SH NAME") && manual.contains("--log-format"),
            "{name}"
        );
        let described = help.lines().next().unwrap();
        assert!(manual.contains(described), "{name}: {described}");
        for shell in [
            format!("share/bash-completion/completions/{name}"),
            format!("share/fish/vendor_completions.d/{name}.fish"),
            format!("share/zsh/site-functions/_{name}"),
        ] {
            assert!(read(shell).contains("log-format"), "{name}");
        }
    }
}
