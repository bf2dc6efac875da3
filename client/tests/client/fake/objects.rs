//! An image, a VM and a command on the bus.

use super::{
    Command, Script, State,
    command::{Asked, Streams},
    shown,
};
use banger_dbus::{
    Dict, DictWriter, Error, Object,
    model::{ExecId, ImageId, VmId},
};
use std::{
    fs::File,
    io::{Seek, Write},
    os::unix::net::UnixStream,
    sync::Arc,
};
use zbus::{OwnedFd, OwnedObjectPath};

pub struct Image {
    pub state: Arc<State>,
    pub id: ImageId,
}

#[zbus::interface(name = "org.banger.Image")]
impl Image {
    async fn describe(&self, _options: Dict) -> Result<Dict, Error> {
        let images = self.state.images.lock().unwrap();
        let image = images.iter().find(|image| image.id == self.id);
        image.map(|image| image.clone().into_dict()).ok_or_else(|| Error::NotFound("gone".into()))
    }

    async fn delete(&self, _options: Dict) -> OwnedObjectPath {
        self.state.images.lock().unwrap().retain(|image| image.id != self.id);
        self.state.begin("delete-image", "image", Script::Succeed(Dict::new())).await
    }

    async fn export(&self, to: OwnedFd, _options: Dict) -> OwnedObjectPath {
        let mut to = File::from(std::os::fd::OwnedFd::from(to));
        let name = self.name();
        to.write_all(b"a filesystem\0\xff").expect("written");
        let script = match name.as_str() {
            "half" => Script::Fail(Error::NoSpace("there is no space left".into())),
            _ => Script::Succeed(Dict::new()),
        };
        self.state.begin("export-image", &name, script).await
    }

    #[zbus(property)]
    fn name(&self) -> String {
        let images = self.state.images.lock().unwrap();
        images.iter().find(|image| image.id == self.id).map(|image| image.name.clone()).unwrap_or_default()
    }
}

pub struct Vm {
    pub state: Arc<State>,
    pub id: VmId,
}

impl Vm {
    async fn job(&self, call: &str, options: &Dict) -> OwnedObjectPath {
        let name = self.name();
        self.state.note(format!("{call} {name} {}", shown(options)).trim_end().to_owned());
        self.state.begin(call, &name, Script::Succeed(Dict::new())).await
    }
}

#[zbus::interface(name = "org.banger.VM")]
impl Vm {
    async fn start(&self, options: Dict) -> OwnedObjectPath {
        self.job("Start", &options).await
    }

    async fn stop(&self, options: Dict) -> OwnedObjectPath {
        self.job("Stop", &options).await
    }

    async fn restart(&self, options: Dict) -> OwnedObjectPath {
        self.job("Restart", &options).await
    }

    async fn kill(&self, signal: i32, options: Dict) -> OwnedObjectPath {
        self.job(&format!("Kill {signal}"), &options).await
    }

    async fn pause(&self, options: Dict) -> OwnedObjectPath {
        self.job("Pause", &options).await
    }

    async fn resume(&self, options: Dict) -> OwnedObjectPath {
        self.job("Resume", &options).await
    }

    async fn set(&self, options: Dict) -> Dict {
        self.state.note(format!("Set {} {}", self.name(), shown(&options)));
        DictWriter::new().with("needs-restart", vec!["cpus".to_owned()]).done()
    }

    async fn wait(&self, _options: Dict) -> Dict {
        DictWriter::new().with("state", "stopped".to_owned()).with("code", 42i32).done()
    }

    async fn delete(&self, options: Dict) -> OwnedObjectPath {
        let job = self.job("Delete", &options).await;
        self.state.vms.lock().unwrap().retain(|vm| vm.id != self.id);
        job
    }

    async fn describe(&self, _options: Dict) -> Result<Dict, Error> {
        let vms = self.state.vms.lock().unwrap();
        let vm = vms.iter().find(|vm| vm.id == self.id);
        vm.map(|vm| vm.clone().into_dict()).ok_or_else(|| Error::NotFound("gone".into()))
    }

    async fn exec(
        &self,
        argv: Vec<String>,
        options: Dict,
    ) -> Result<(OwnedObjectPath, OwnedFd, OwnedFd, OwnedFd), Error> {
        self.state.note(format!("Exec {} {argv:?} {}", self.name(), shown(&options)));
        let (command, Streams(stdin, stdout, stderr)) =
            Command::start(self.state.clone(), Asked::read(argv, options)?)?;
        self.state.commands.lock().unwrap().push(command.clone());
        let path = ExecId::from_bits(self.state.bits()).path();
        self.state.connection().object_server().at(&path, Exec(command)).await?;
        Ok((path, stdin.into(), stdout.into(), stderr.into()))
    }

    /// A console that greets and then says what it hears.
    async fn open_console(&self, _options: Dict) -> OwnedFd {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        std::thread::spawn(move || {
            let mut ours = ours;
            let mut hears = ours.try_clone().expect("a descriptor");
            let _ = ours.write_all(b"console\r\n");
            let _ = std::io::copy(&mut hears, &mut ours);
        });
        std::os::fd::OwnedFd::from(theirs).into()
    }

    async fn open_log(&self, _options: Dict) -> OwnedFd {
        let mut log = tempfile::tempfile().expect("a file");
        log.write_all(b"[    0.000000] Linux\n\xff\0").expect("written");
        log.rewind().expect("rewound");
        std::os::fd::OwnedFd::from(log).into()
    }

    #[zbus(property)]
    fn name(&self) -> String {
        let vms = self.state.vms.lock().unwrap();
        vms.iter().find(|vm| vm.id == self.id).map(|vm| vm.name.clone()).unwrap_or_default()
    }
}

pub struct Exec(Arc<Command>);

#[zbus::interface(name = "org.banger.Exec")]
impl Exec {
    async fn wait(&self, _options: Dict) -> Dict {
        let mut end = self.0.end.subscribe();
        let end = end.wait_for(Option::is_some).await.expect("kept").expect("ended");
        end.into_dict()
    }

    async fn resize(&self, rows: u16, columns: u16, _options: Dict) {
        self.0.resize(rows, columns);
    }

    async fn signal(&self, signal: i32, _options: Dict) {
        self.0.state.note(format!("Signal {signal}"));
        self.0.signal(signal);
    }
}
