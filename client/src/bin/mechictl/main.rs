//! `mechictl`: etcdctl's commands for Mechi and etcd.

fn main() {
    eprintln!("mechictl: no command is served yet");
    std::process::exit(1);
}
