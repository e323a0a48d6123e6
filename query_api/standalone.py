"""The command ``everyline up``: the whole way of a line as processes on one machine.

Directories of logs come in, or the demo's; collectors, indexer, keeper and query service run as
children of one supervisor on a local topic and a local bucket. No child outlives the supervisor;
a stop follows the flow, so that what was read is committed before the last process ends.
"""

import argparse
import contextlib
import fcntl
import json
import os
import re
import select
import shlex
import shutil
import signal
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from query_api.errors import CannotStart
from query_api.supervise import Child, ChildFailed, Supervisor

DEFAULT_PORT = 8080
_FIRST_LINE_WAIT_S = 15.0
_SETTLED_S = 3.0
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")
