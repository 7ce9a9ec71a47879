//! The program `heizer`.

use std::process::ExitCode;

fn main() -> ExitCode {
    heizer_broker::admin::main()
}
