//! As much of protoc as prost-build calls: `protoc --include_imports --include_source_info -o SET -I DIR... FILE...`

use std::error::Error;
use std::{env, fs};

use protox::Compiler;

fn main() -> Result<(), Box<dyn Error>> {
    let (mut includes, mut files, mut output) = (Vec::new(), Vec::new(), None);
    let mut args = env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "-I" => includes.push(args.next().ok_or("-I without a directory")?),
            "-o" => output = args.next(),
            option if option.starts_with('-') => {}
            _ => files.push(arg),
        }
    }
    let mut compiler = Compiler::new(includes)?;
    compiler.include_imports(true).include_source_info(true).open_files(files)?;
    fs::write(output.ok_or("no -o")?, compiler.encode_file_descriptor_set())?;
    Ok(())
}
