"""What outlives every process: content by its digest."""

from cluster.storage.blobs import Blobs as Blobs
