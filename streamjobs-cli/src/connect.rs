//! Connects to the server as the arguments say.

use streamjobs::{Client, ClientBuilder};

use crate::Failure;
use crate::arguments::{Arguments, Tls};

pub(crate) async fn client(arguments: &Arguments) -> Result<Client, Failure> {
    let mut builder = Client::builder(&arguments.url);
    if let Some(stream) = arguments.command.stream() {
        builder = builder.partitions_as_stored(stream.as_str());
    }
    Ok(with_tls(builder, &arguments.tls)?.connect().await?)
}

#[cfg(feature = "tls")]
fn with_tls(builder: ClientBuilder, tls: &Tls) -> Result<ClientBuilder, Failure> {
    use streamjobs::config::TlsOptions;

    let Tls { tls_ca, tls_cert, tls_key, tls_server_name } = tls;
    let mut options = TlsOptions::new();
    if let Some(file) = tls_ca {
        options = options.ca_pem(read(file)?);
    }
    if let (Some(certificate), Some(key)) = (tls_cert, tls_key) {
        options = options.client_certificate_pem(read(certificate)?, read(key)?);
    }
    if let Some(name) = tls_server_name {
        options = options.server_name(name);
    }
    Ok(if is_empty(tls) { builder } else { builder.tls(options) })
}

#[cfg(not(feature = "tls"))]
fn with_tls(builder: ClientBuilder, tls: &Tls) -> Result<ClientBuilder, Failure> {
    match is_empty(tls) {
        true => Ok(builder),
        false => {
            let text =
                "the options that begin with --tls- need the feature `tls` of streamjobs-cli";
            Err(streamjobs::error::ConnectError::Setting(text.to_owned()).into())
        }
    }
}

fn is_empty(tls: &Tls) -> bool {
    let Tls { tls_ca, tls_cert, tls_key, tls_server_name } = tls;
    tls_ca.is_none() && tls_cert.is_none() && tls_key.is_none() && tls_server_name.is_none()
}

#[cfg(feature = "tls")]
fn read(file: &std::path::Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(file).map_err(|error| format!("cannot read {}: {error}", file.display()).into())
}
