//! `streamjobs completions` and `man`, which ask no server.

use std::fs;
use std::process::Command;

use crate::program::run_at;

/// No server answers here.
const NOWHERE: &str = "redis://127.0.0.1:1";

#[test]
fn completions_of_each_shell_know_the_commands_and_their_options() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let ran = run_at(NOWHERE, &format!("completions {shell}")).ended(0);
        for word in ["hand-over", "redrive", "idle-min", "deliveries-min", "new-stream"] {
            assert!(ran.out.contains(word), "{shell} does not complete {word}");
        }
        assert!(!ran.out.contains("127.0.0.1:1\n") && ran.err.is_empty(), "{shell}");
    }
    let ran = run_at(NOWHERE, "completions tcsh").ended(2);
    assert!(ran.err.contains("bash"), "{ran:?}");
}

/// The shell itself reads its completions.
#[test]
fn bash_completes_a_command() {
    let script = run_at(NOWHERE, "completions bash").ended(0).out;
    let ask = "COMP_WORDS=(streamjobs dead red); COMP_CWORD=2; _streamjobs streamjobs red dead; \
               echo ${COMPREPLY[@]}";
    let words = ["-c", &format!("{script}\n{ask}")];
    let output = Command::new("bash").args(words).output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "redrive\n");
}

#[test]
fn the_manual_has_a_page_for_each_command() {
    let page = run_at(NOWHERE, "man").ended(0).out;
    assert!(page.contains(".TH streamjobs 1") && page.contains("Exit codes"), "{page}");
    let folder = std::env::temp_dir().join(format!("streamjobs-man-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let _ = run_at(NOWHERE, &format!("man --folder {}", folder.display())).ended(0);
    let redrive = fs::read_to_string(folder.join("streamjobs-dead-redrive.1")).unwrap();
    assert!(redrive.contains("dead letters") && folder.join("streamjobs.1").exists());
    fs::remove_dir_all(&folder).unwrap();
    let ran = run_at(NOWHERE, "man --folder /nowhere/at/all").ended(1);
    assert!(ran.err.starts_with("streamjobs: "), "{ran:?}");
}
