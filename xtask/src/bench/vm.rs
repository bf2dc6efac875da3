//! What banger adds to a VM: to its start, to a command's output, to a listing.

use super::{median, shortest};
use crate::machine;
use anyhow::{Context, Result, ensure};
use banger_harness::{REGISTRY, images, inside};
use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// What the image is called here.
const NAME: &str = "bench";
/// What the guest prints when it has come as far as the command.
const MARK: &str = "the-command-runs";
/// How many VMs there are when the start is measured again.
const MANY: usize = 100;
/// How many VMs are listed.
const LISTED: usize = 1000;

/// Measures all of it, `rounds` times each.
pub fn measure(layout: &Path, name: &str, rounds: usize, caller: &Path) -> Result<()> {
    let reference = format!("{REGISTRY}/{name}");
    images::push(layout, &reference)?;
    banger(&["image", "pull", "--name", NAME, &reference])?;
    // The kernel's initramfs is made, and everything has been in memory once.
    banger(&["run", "--rm", NAME, "--", "true"])?;

    let call = (0..rounds).map(|_| timed(&["version"])).collect::<Result<Vec<_>>>()?;
    let first = starts(rounds, caller)?;
    println!("{:<52} {:>9}", "median, ms", "");
    line("the client and one call, for comparison", median(&call));
    line("CreateVM until the VMM executes, no other VM", median(&first));

    output(rounds)?;

    sizes(&reference, rounds)?;
    empty_image("small", "8M")?;
    for number in 0..MANY {
        created("small", number)?;
    }
    let hundredth = starts(rounds, caller)?;
    line(&format!("CreateVM until the VMM executes, {MANY} other VMs"), median(&hundredth));
    println!("{:<52} {:>9.2}", "ratio", median(&hundredth).as_secs_f64() / median(&first).as_secs_f64());

    for number in MANY..LISTED {
        created("small", number)?;
    }
    let listed = (0..rounds).map(|_| called(caller, &["list"])).collect::<Result<Vec<_>>>()?;
    line(&format!("ListVMs of {LISTED} VMs"), median(&listed));
    let shown = (0..rounds).map(|_| timed(&["vm", "ls", "--quiet"])).collect::<Result<Vec<_>>>()?;
    line(&format!("vm ls of {LISTED} VMs, with the client"), median(&shown));
    Ok(())
}

fn line(what: &str, time: Duration) {
    println!("{what:<52} {:>9.1}", time.as_secs_f64() * 1e3);
}

/// From the call to the VMM.
fn starts(rounds: usize, caller: &Path) -> Result<Vec<Duration>> {
    let start = |_| {
        let time = called(caller, &["start", NAME, "started"])?;
        banger(&["vm", "rm", "--force", "started"])?;
        Ok(time)
    };
    (0..rounds).map(start).collect()
}

/// How long the caller says that its call took.
fn called(caller: &Path, arguments: &[&str]) -> Result<Duration> {
    let told = banger_harness::output(Command::new(caller).args(arguments))?;
    Ok(Duration::from_micros(told.trim().parse().context("the caller says something else")?))
}

/// Making a VM of a small and of a large image, without starting it.
fn sizes(reference: &str, rounds: usize) -> Result<()> {
    let mut medians = Vec::new();
    for (name, size) in [("of-10-mb", "10M"), ("of-10-gb", "10G")] {
        match name {
            "of-10-mb" => empty_image(name, size)?,
            _ => drop(banger(&["image", "pull", "--name", name, "--size", size, reference])?),
        }
        let times = (0..rounds).map(|_| {
            let time = timed(&["vm", "create", "--no-start", "--image", name, "--name", "sized"])?;
            banger(&["vm", "rm", "sized"])?;
            Ok(time)
        });
        medians.push(median(&times.collect::<Result<Vec<_>>>()?));
        line(&format!("vm create --no-start of an image of {size}"), *medians.last().context("no median")?);
    }
    println!("{:<52} {:>9.2}", "ratio", medians[1].as_secs_f64() / medians[0].as_secs_f64());
    Ok(())
}

/// A command's output, by `banger run` and by a bare QEMU with the same files, in turn.
fn output(rounds: usize) -> Result<()> {
    let bare = Bare::take()?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        theirs.push(bare.run()?);
        let began = Instant::now();
        let child = spawn(&["run", "--rm", NAME, "--", "echo", MARK])?;
        ours.push(until_mark(child, began)?);
    }
    println!("{:<52} {:>9} {:>9}", "to a command's output, shortest, ms", "", "to QEMU");
    for (what, times) in [("bare QEMU", &theirs), ("banger run --rm", &ours)] {
        let ratio = shortest(times).as_secs_f64() / shortest(&theirs).as_secs_f64();
        println!("{what:<52} {:>9.1} {ratio:>9.2}", shortest(times).as_secs_f64() * 1e3);
    }
    Ok(())
}

/// QEMU as banger starts it, but by itself: with copies of the files of a VM that printed [`MARK`] at boot.
struct Bare {
    _folder: tempfile::TempDir,
    arguments: Vec<String>,
    disk: PathBuf,
    origin: PathBuf,
}

impl Bare {
    fn take() -> Result<Self> {
        let folder = super::folder()?;
        let say = format!("echo {MARK} >/dev/ttyS0");
        banger(&[
            "run",
            "--detach",
            "--name",
            "model",
            NAME,
            "--",
            "sh",
            "-c",
            &format!("{say}; sleep 1000"),
        ])?;
        let pid = *inside::pids("qemu-system-x86").first().context("no QEMU runs")?;
        let line =
            fs::read_to_string(format!("/proc/{pid}/cmdline")).context("cannot read QEMU's arguments")?;
        let mut arguments: Vec<String> =
            line.trim_end_matches('\0').split('\0').skip(1).map(str::to_owned).collect();
        let disk = folder.path().join("disk");
        for index in 1..arguments.len() {
            let (option, value) = (arguments[index - 1].clone(), &mut arguments[index]);
            match option.as_str() {
                "-kernel" | "-initrd" => {
                    let copy = folder.path().join(option.trim_start_matches('-'));
                    fs::copy(value.replace("self", &pid.to_string()), &copy)
                        .context("cannot copy a boot file")?;
                    *value = copy.display().to_string();
                }
                "-blockdev" => {
                    *value = format!(
                        "driver=file,node-name=root,filename={},cache.direct=on,discard=unmap",
                        disk.display()
                    );
                }
                "-netdev" => *value = "hubport,id=net,hubid=0".into(),
                "-chardev" if value.contains("id=console") => *value = "stdio,id=console".into(),
                "-chardev" => *value = format!("null,id={}", id(value).context("a chardev without a name")?),
                _ => {}
            }
        }
        // Descriptors that it does not have.
        while let Some(index) = arguments.iter().position(|argument| argument == "-add-fd") {
            arguments.drain(index..=index + 1);
        }
        let image = banger(&["image", "show", "--format=json", NAME])?;
        let image: serde_json::Value = serde_json::from_str(&image)?;
        let image = image[0]["id"].as_str().context("an image without an id")?;
        let origin = Path::new("/var/lib/banger/images").join(image).join("rootfs.ext4");
        banger(&["vm", "rm", "--force", "model"])?;
        Ok(Self { _folder: folder, arguments, disk, origin })
    }

    /// From QEMU's start to the mark, on a fresh disk.
    fn run(&self) -> Result<Duration> {
        machine::run(Command::new("/bin/cp").arg("--sparse=always").arg(&self.origin).arg(&self.disk))?;
        let mut command = Command::new("/usr/bin/qemu-system-x86_64");
        command.args(&self.arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let began = Instant::now();
        until_mark(command.spawn().context("cannot run QEMU")?, began)
    }
}

/// The `id=` of an option's value.
fn id(value: &str) -> Option<&str> {
    value.split(',').find_map(|part| part.strip_prefix("id="))
}

/// How long it took until [`MARK`] came out of the process, which is ended then unless it ends by itself.
fn until_mark(mut child: Child, began: Instant) -> Result<Duration> {
    let output = child.stdout.take().context("no output to read")?;
    let mut marked = None;
    for line in BufReader::new(output).split(b'\n') {
        let line = line.context("cannot read what a VM prints")?;
        if String::from_utf8_lossy(&line).trim_end() == MARK {
            marked = Some(began.elapsed());
            break;
        }
    }
    if child.try_wait()?.is_none() && marked.is_some() && is_qemu(&child) {
        child.kill()?;
    }
    child.wait()?;
    marked.context("the command's output did not come")
}

fn is_qemu(child: &Child) -> bool {
    fs::read_to_string(format!("/proc/{}/comm", child.id())).is_ok_and(|name| name.starts_with("qemu"))
}

/// An image that costs nothing to make VMs of.
fn empty_image(name: &str, size: &str) -> Result<()> {
    let folder = super::folder()?;
    let archive = folder.path().join("root.tar");
    let mut builder = tar::Builder::new(fs::File::create(&archive)?);
    let mut header = tar::Header::new_gnu();
    header.set_size(0);
    header.set_mode(0o644);
    builder.append_data(&mut header, "empty", std::io::empty())?;
    builder.finish()?;
    let path = archive.display().to_string();
    banger(&["image", "import", "--format", "rootfs", "--size", size, "--name", name, &path]).map(drop)
}

fn created(image: &str, number: usize) -> Result<()> {
    banger(&["vm", "create", "--no-start", "--image", image, "--name", &format!("other-{number}")]).map(drop)
}

fn timed(args: &[&str]) -> Result<Duration> {
    let began = Instant::now();
    banger(args)?;
    Ok(began.elapsed())
}

fn spawn(args: &[&str]) -> Result<Child> {
    let mut command = inside::client("root", args);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    command.spawn().context("cannot run the client")
}

/// What the client prints.
fn banger(args: &[&str]) -> Result<String> {
    let ran = inside::banger("root", args);
    ensure!(ran.code == 0, "{ran}");
    Ok(ran.text())
}
