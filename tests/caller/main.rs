//! Calls the service as a program does that has its connection to the bus already, and prints how many microseconds that took:
//! for `cargo xtask bench`.

use banger_dbus::{Dict, DictWriter, JobProxy, ManagerProxy};
use std::{
    error::Error,
    fs,
    time::{Duration, Instant},
};
use zbus::Connection;

/// How often the VMM is looked for; well below what is measured.
const LOOK: Duration = Duration::from_micros(200);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let bus = Connection::system().await?;
    let manager = ManagerProxy::new(&bus).await?;
    // The service runs, and knows this connection.
    manager.version().await?;
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let time = match words.as_slice() {
        ["start", image, name] => start(&bus, &manager, image, name).await?,
        ["list"] => {
            let began = Instant::now();
            manager.list_vms(&Dict::new()).await?;
            began.elapsed()
        }
        _ => return Err("bus-caller start IMAGE NAME | list".into()),
    };
    println!("{}", time.as_micros());
    Ok(())
}

/// From the call until the VMM executes. The guest is awaited then.
async fn start(
    bus: &Connection,
    manager: &ManagerProxy<'_>,
    image: &str,
    name: &str,
) -> Result<Duration, Box<dyn Error>> {
    if executes() {
        return Err("a VM runs already".into());
    }
    let options = DictWriter::new().with("image", image.to_owned()).done();
    let (told, executed) = std::sync::mpsc::channel();
    let began = Instant::now();
    std::thread::spawn(move || {
        while !executes() {
            std::thread::sleep(LOOK);
        }
        told.send(began.elapsed())
    });
    let (_, job) = manager.create_vm(name, &options).await?;
    JobProxy::builder(bus).path(job).build().await?.wait(&Dict::new()).await?;
    Ok(executed.recv()?)
}

/// Whether a VM's process has become its VMM. To look through all processes would take one of the processors from what is
/// measured; the helper writes down which it is.
fn executes() -> bool {
    let folders = fs::read_dir("/run/banger/vm").into_iter().flatten().flatten();
    folders.into_iter().any(|folder| {
        let record = fs::read(folder.path().join("record.json")).unwrap_or_default();
        let pid = serde_json::from_slice::<serde_json::Value>(&record).map(|record| record["pid"].clone());
        pid.is_ok_and(|pid| {
            fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.starts_with("qemu"))
        })
    })
}
