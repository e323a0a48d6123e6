"""One S3 server, versitygw over a local folder, started for a test run.

Goes out: an endpoint on loopback, random credentials and a new bucket for each test that asks.
The binary is in .tools, where make builds it; nothing of what is stored outlives the run.
"""

import os
import secrets
import tempfile
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
from botocore.config import Config

from tests.real_parts.guard import TOOLS, Guarded, ServerError, accepts, free_port

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

REGION = "us-east-1"


@dataclass(frozen=True)
class Bucket:
    """An empty bucket, and all that a client has to know to use it."""

    endpoint: str
    access_key: str
    secret_key: str
    name: str
    region: str = REGION

    def client(self) -> "S3Client":
        """A boto3 client for this server; one for each thread that wants its own connection."""
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name=self.region,
            config=Config(
                s3={"addressing_style": "path"},
                retries={"total_max_attempts": 1},  # a test wants to see the first answer
                max_pool_connections=32,
            ),
        )


@dataclass
class S3Server:
    """A running server; `endpoint` is its URL."""

    endpoint: str
    access_key: str
    secret_key: str
    server: Guarded

    @classmethod
    def start(cls) -> "S3Server":
        """Start a server on a new folder; returns when it serves."""
        binary = TOOLS / "bin" / "versitygw"
        if not binary.exists():
            raise ServerError("versitygw is missing in .tools/bin; run make tools")
        folder = Path(tempfile.mkdtemp(prefix="everyline-s3-"))
        data = folder / "data"
        data.mkdir()
        port = free_port()
        access_key, secret_key = secrets.token_hex(10), secrets.token_hex(20)
        server = Guarded(
            [str(binary), "--port", f"127.0.0.1:{port}", "posix", str(data)],
            folder,
            env={"ROOT_ACCESS_KEY": access_key, "ROOT_SECRET_KEY": secret_key},
        )
        server.wait_until(lambda: accepts(port), timeout_s=30)
        return cls(f"http://127.0.0.1:{port}", access_key, secret_key, server)

    def new_bucket(self) -> Bucket:
        """Create an empty bucket of a new name."""
        name = f"logs-{uuid.uuid4().hex[:12]}"
        bucket = Bucket(self.endpoint, self.access_key, self.secret_key, name)
        bucket.client().create_bucket(Bucket=name)
        return bucket

    def age(self, bucket: Bucket, key: str, seconds: float) -> None:
        """Let an object be as old as if it had been stored so many seconds ago."""
        then = time.time() - seconds
        os.utime(self.server.folder / "data" / bucket.name / key, (then, then))

    def close(self) -> None:
        """End the server and remove all that it has stored."""
        self.server.stop()
