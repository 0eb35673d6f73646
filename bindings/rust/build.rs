// SPDX-License-Identifier: Apache-2.0
//! Links the C library: the folder in `SSM_LIB_DIR`, or where the linker looks by itself.

fn main() {
    println!("cargo:rerun-if-env-changed=SSM_LIB_DIR");
    if let Ok(folder) = std::env::var("SSM_LIB_DIR") {
        println!("cargo:rustc-link-search=native={folder}");
        println!("cargo:rustc-link-arg=-Wl,-rpath,{folder}"); // for this crate's own examples and tests
    }
    println!("cargo:rustc-link-lib=dylib=ssm");
}
