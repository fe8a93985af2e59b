"""The bus of a TPM, recorded: a relay between keyescrow and swtpm's unix sockets.

TpmBus(folder, upstream) listens at folder/bus.sock and folder/bus.sock.ctrl, as swtpm does, and
keeps every byte of both directions.
"""

import os
import socket
import struct
import threading

# Source: TPM 2.0 Part 2, 6.5.2 (TPM_CC) and 6.9 (TPM_ST).
COMMAND_NAMES = {
    0x131: "CreatePrimary", 0x120: "EvictControl", 0x144: "Startup",
    0x145: "Shutdown", 0x153: "Create", 0x157: "Load", 0x15D: "Sign", 0x15E: "Unseal",
    0x165: "FlushContext", 0x16B: "PolicyAuthValue", 0x173: "ReadPublic", 0x176: "StartAuthSession",
    0x17A: "GetCapability", 0x17F: "PolicyPCR",
}
HEADER = struct.Struct(">HII")  # tag, size, command code


class TpmBus:
    def __init__(self, folder, upstream):
        self.path = os.path.join(str(folder), "bus.sock")
        self.tcti = "swtpm:path=" + self.path
        self.sent = bytearray()  # to the TPM, data channel
        self.received = bytearray()
        self.control = bytearray()  # both directions
        self._listeners = []
        self._listen(self.path, upstream, self.sent, self.received)
        self._listen(self.path + ".ctrl", upstream + ".ctrl", self.control, self.control)

    def _listen(self, path, upstream, sent, received):
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        listener.listen(8)
        self._listeners.append(listener)
        threading.Thread(target=self._accept, args=(listener, upstream, sent, received),
                         daemon=True).start()

    def _accept(self, listener, upstream, sent, received):
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._relay, args=(client, upstream, sent, received),
                             daemon=True).start()

    def _relay(self, client, upstream, sent, received):
        with client, socket.socket(socket.AF_UNIX) as server:
            server.connect(upstream)
            answers = threading.Thread(target=self._pump, args=(server, client, received),
                                       daemon=True)
            answers.start()
            self._pump(client, server, sent)
            answers.join()

    @staticmethod
    def _pump(source, sink, record):
        try:
            while data := source.recv(65536):
                record += data
                sink.sendall(data)
        except OSError:
            pass
        for end in (source, sink):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def commands(self):
        """The names of the commands sent, in order."""
        names, at = [], 0
        while at < len(self.sent):
            tag, size, code = HEADER.unpack_from(self.sent, at)
            if tag not in (0x8001, 0x8002) or size < HEADER.size:
                raise ValueError("no command header at byte %d" % at)
            names.append(COMMAND_NAMES.get(code, hex(code)))
            at += size
        return names

    def everything(self):
        return bytes(self.sent) + b"|" + bytes(self.received) + b"|" + bytes(self.control)

    def forget(self):
        for record in (self.sent, self.received, self.control):
            record.clear()

    def close(self):
        for listener in self._listeners:
            listener.close()
