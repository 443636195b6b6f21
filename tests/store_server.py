"""An S3-compatible store on loopback."""

from moto.server import ThreadedMotoServer
from pyarrow import fs


class Store:
    """moto's server with one bucket."""

    def __init__(self) -> None:
        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        self._server.start()
        _, port = self._server.get_host_and_port()
        self._options = f"endpoint_override=127.0.0.1:{port}&scheme=http&region=us-east-1"
        self.files = fs.S3FileSystem(
            endpoint_override=f"127.0.0.1:{port}", scheme="http", access_key="key", secret_key="secret",
            region="us-east-1", allow_bucket_creation=True,
        )  # fmt: skip
        self.files.create_dir("bucket")

    def uri(self, prefix: str) -> str:
        return f"s3://key:secret@bucket/{prefix}?{self._options}"

    def objects(self, prefix: str) -> dict[str, tuple[object, int]]:
        """Time and size of every object, by name."""
        found = self.files.get_file_info(fs.FileSelector(f"bucket/{prefix}", recursive=True, allow_not_found=True))
        return {
            one.path.removeprefix(f"bucket/{prefix}/"): (one.mtime, one.size)
            for one in found
            if one.type == fs.FileType.File
        }

    def write(self, name: str, content: bytes) -> None:
        with self.files.open_output_stream(f"bucket/{name}") as stream:
            stream.write(content)

    def read(self, name: str) -> bytes:
        with self.files.open_input_stream(f"bucket/{name}") as stream:
            return stream.read()

    def close(self) -> None:
        self._server.stop()
