//! Real Apache Kafka: one combined KRaft node per instance, from the jars that `tests/run install` fetched.

use crate::{files::TestDir, free_port, tools, wait_for};
use std::fs::{File, OpenOptions};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// The releases that the suites run against: the last with ZooKeeper's generation of protocols, and the newest.
pub const VERSIONS: [&str; 2] = ["3.9.2", "4.3.0"];

/// A broker with its own directory and port, which stay the same over restarts.
#[derive(Debug)]
pub struct Kafka {
    dir: TestDir,
    version: &'static str,
    child: Option<Child>,
    /// Port of the PLAINTEXT listener on 127.0.0.1.
    pub port: u16,
}

impl Kafka {
    /// Formats a directory, starts the broker and waits until it answers.
    ///
    /// # Panics
    /// When it does not; its log is in the message.
    #[must_use]
    pub fn start(version: &'static str) -> Self {
        Self::start_at(version, free_port())
    }

    /// The same on a port that a README names.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start_at(version: &'static str, port: u16) -> Self {
        let dir = TestDir::new(&format!("kafka-{version}"));
        let controller = free_port();
        let properties = format!(
            "process.roles=broker,controller\nnode.id=1\n\
             controller.quorum.voters=1@127.0.0.1:{controller}\n\
             listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\n\
             advertised.listeners=PLAINTEXT://127.0.0.1:{port}\n\
             listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT\n\
             controller.listener.names=CONTROLLER\ninter.broker.listener.name=PLAINTEXT\n\
             log.dirs={}\nnum.partitions=4\n\
             offsets.topic.replication.factor=1\n\
             transaction.state.log.replication.factor=1\ntransaction.state.log.min.isr=1\n\
             share.coordinator.state.topic.replication.factor=1\nshare.coordinator.state.topic.min.isr=1\n\
             group.initial.rebalance.delay.ms=0\n",
            dir.path().join("data").display()
        );
        std::fs::write(dir.path().join("server.properties"), properties)
            .expect("the test's directory is writable");
        let mut kafka = Self { dir, version, child: None, port };
        tools::run(
            kafka
                .class("kafka.tools.StorageTool")
                .args(["format", "-t", "aGVhZHdhdGVyLXRlc3RzMQ", "-c"])
                .arg(kafka.dir.path().join("server.properties")),
        );
        kafka.start_again();
        kafka
    }

    /// The jars of this release.
    fn jars(version: &str) -> PathBuf {
        let dir = tools::cache().join(format!("kafka-{version}"));
        assert!(dir.exists(), "{} is missing: ./tests/run install", dir.display());
        dir
    }

    /// `java` with this release's class path and one of its classes, ready for arguments.
    #[must_use]
    pub fn class(&self, class: &str) -> Command {
        Self::class_of(self.version, class)
    }

    /// The same for a release without a broker.
    ///
    /// # Panics
    /// When the jars are missing.
    #[must_use]
    pub fn class_of(version: &str, class: &str) -> Command {
        let mut java = Command::new("java");
        java.arg("-cp").arg(Self::jars(version).join("*"));
        java.args([
            "-Xmx512m",
            "-XX:TieredStopAtLevel=1",
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
            class,
        ]);
        java
    }

    /// The folder of its partitions' folders.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// `HOST:PORT` for clients.
    #[must_use]
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    fn log_file(&self) -> File {
        let path = self.dir.path().join("log");
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .expect("the test's directory is writable")
    }

    /// Starts the broker (again) on the same port and data, and waits until it answers.
    ///
    /// # Panics
    /// When it does not within two minutes.
    pub fn start_again(&mut self) {
        assert!(self.child.is_none(), "the broker runs already");
        let child = self
            .class("kafka.Kafka")
            .arg(self.dir.path().join("server.properties"))
            .stdin(Stdio::null())
            .stdout(self.log_file())
            .stderr(self.log_file())
            .spawn()
            .expect("java starts");
        self.child = Some(child);
        wait_for("Kafka to answer", Duration::from_secs(120), || {
            TcpStream::connect(("127.0.0.1", self.port)).ok()?;
            // The port opens before the broker serves metadata.
            let listed = Command::new("kcat")
                .args(["-L", "-m", "5", "-b", &self.address()])
                .output()
                .ok()?;
            listed.status.success().then_some(())
        });
    }

    /// Stops the broker as an operator would, or as a power cut would.
    ///
    /// # Panics
    /// When it does not run.
    pub fn stop(&mut self, how: Stop) {
        let mut child = self.child.take().expect("the broker runs");
        match how {
            Stop::Clean => {
                tools::run(Command::new("kill").arg("-TERM").arg(child.id().to_string()));
                wait_for("Kafka to stop", Duration::from_secs(60), || {
                    child.try_wait().expect("the child is ours")
                });
            }
            Stop::Kill => {
                child.kill().expect("the child is ours");
                child.wait().expect("the child is ours");
            }
        }
    }
}

/// How a broker ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// SIGTERM, and wait.
    Clean,
    /// SIGKILL.
    Kill,
}

impl Drop for Kafka {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Already gone is as good.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
