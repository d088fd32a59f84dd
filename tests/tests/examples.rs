//! The README and the examples, followed word for word: what stands in their `sh` blocks is run as it stands, on the
//! ports it names, in a network of the test's own.
//!
//! A line that starts a server (`... headwater run ...`, also through cargo) runs in the background; `cargo build` is
//! done already; `cargo run --release --` is this build's program. Every other line must succeed, and what a line shows
//! as its answer (lines that begin with `# ` after it) must be in what it printed.

use headwater_tests::{files::TestDir, kafka::Kafka, network::inside_own_network, tools, wait_for};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// The commands of a README's `sh` blocks, each with the lines of its expected answer.
fn commands(readme: &Path) -> Vec<(String, Vec<String>)> {
    let text =
        std::fs::read_to_string(readme).unwrap_or_else(|e| panic!("{}: {e}", readme.display()));
    let mut commands: Vec<(String, Vec<String>)> = Vec::new();
    let mut inside = false;
    let mut continued = false;
    for line in text.lines() {
        match (inside, line.trim()) {
            (false, "```sh") => inside = true,
            (true, "```") => inside = false,
            (true, "") | (false, _) => {}
            (true, line) if continued => {
                let (command, _) = commands.last_mut().expect("a line to continue");
                command.push(' ');
                command.push_str(line.trim_end_matches('\\').trim());
                continued = line.ends_with('\\');
            }
            (true, line) => match (line.strip_prefix("# "), commands.last_mut()) {
                (Some(answer), Some((_, answers))) => answers.push(answer.to_owned()),
                (Some(_), None) => {}
                (None, _) => {
                    continued = line.ends_with('\\');
                    commands.push((line.trim_end_matches('\\').trim().to_owned(), Vec::new()));
                }
            },
        }
    }
    assert!(!commands.is_empty(), "{} has no sh block", readme.display());
    commands
}

/// The servers that the commands started; killed at the end.
struct Servers(Vec<Child>);

impl Drop for Servers {
    fn drop(&mut self) {
        for server in &mut self.0 {
            // Already gone is as good.
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}

/// Runs what a README says, from a directory that looks like a checkout.
fn follow(readme: &str) {
    let dir = TestDir::new("follow");
    for folder in ["examples", "README.md"] {
        std::os::unix::fs::symlink(tools::repository().join(folder), dir.path().join(folder))
            .expect("a new directory");
    }
    std::fs::create_dir_all(dir.path().join("target/release")).expect("a new directory");
    std::os::unix::fs::symlink(tools::headwater(), dir.path().join("target/release/headwater"))
        .expect("new");

    let mut servers = Servers(Vec::new());
    for (command, answers) in commands(&tools::repository().join(readme)) {
        if command.starts_with("cargo build") {
            continue;
        }
        let line = command.replace("cargo run --release --", "./target/release/headwater");
        let mut shell = Command::new("bash");
        shell.args(["-euo", "pipefail", "-c", &line]).current_dir(dir.path()).stdin(Stdio::null());
        if line.contains("headwater run") {
            servers.0.push(shell.spawn().expect("bash starts"));
            wait_for("the node to listen", Duration::from_secs(30), || {
                TcpStream::connect(("127.0.0.1", 1883)).ok()
            });
            continue;
        }
        // A README's reader looks again when an answer is not there yet; so does this.
        wait_for(&format!("`{command}` to answer {answers:?}"), Duration::from_secs(60), || {
            let output = shell.output().expect("bash starts");
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            println!("$ {command}\n{said}{}", String::from_utf8_lossy(&output.stderr));
            (output.status.success() && answers.iter().all(|answer| said.contains(answer)))
                .then_some(())
        });
    }
}

#[test]
fn the_readme_runs_as_written() {
    if inside_own_network("the_readme_runs_as_written") {
        follow("README.md");
    }
}

#[test]
fn gateway_alone_runs_as_written() {
    if inside_own_network("gateway_alone_runs_as_written") {
        follow("examples/gateway-alone/README.md");
    }
}

#[test]
fn plant_to_kafka_runs_as_written() {
    if inside_own_network("plant_to_kafka_runs_as_written") {
        let _centre = Kafka::start_at("4.3.0", 19_092);
        follow("examples/plant-to-kafka/README.md");
    }
}
