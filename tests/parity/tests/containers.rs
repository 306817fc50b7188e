//! The test containers themselves: their limits are the kernel's, and nothing is left of them.

use std::fs;
use std::path::PathBuf;

use ebb_agent::probe::{ContainerFiles, Facts};
use ebb_tests_parity::Container;

const LIMIT_BYTES: u64 = 64 << 20;

#[test]
fn limits_are_held_by_the_kernel_and_nothing_is_left() {
    let facts = Facts::gather();
    let container = Container::new(&facts, "limited").unwrap();
    container.limit_memory(LIMIT_BYTES).unwrap();
    container.limit_cpu(20_000, 100_000).unwrap();
    let memory = ContainerFiles::open(&container.paths).memory().unwrap();
    assert_eq!(memory.limit_bytes, Some(LIMIT_BYTES));
    let child = container
        .spawn(env!("CARGO_BIN_EXE_ebb-parity-load"), &["spin", "500"])
        .unwrap()
        .wait_with_output()
        .unwrap();
    assert!(child.status.success(), "{child:?}");
    let throttling = ContainerFiles::open(&container.paths).throttling().unwrap();
    assert!(throttling.throttled_periods > 0, "{throttling:?}");
    let folders: Vec<PathBuf> = container.folders().to_vec();
    assert!(folders.iter().all(|folder| folder.exists()));
    drop(container);
    for folder in folders {
        assert!(!folder.exists(), "{} is left", folder.display());
        assert!(fs::read_dir(folder.parent().unwrap()).is_err());
    }
}
