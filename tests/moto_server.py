"""moto's S3 server, with a conditional PUT that is one step, as every real store's is: moto looks, then writes."""

import sys
import threading
from typing import Any

from moto.s3.responses import S3Response
from moto.server import main

ONE_AT_A_TIME = threading.Lock()
put_object = S3Response.put_object


def put_in_one_step(self: Any) -> Any:
    if "If-None-Match" not in self.headers:
        return put_object(self)
    with ONE_AT_A_TIME:
        return put_object(self)


S3Response.put_object = put_in_one_step

if __name__ == "__main__":
    main(sys.argv[1:])
