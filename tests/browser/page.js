// What runs in the browser: candidate gathering and one end of a call. The script outside (run.mjs) calls these
// functions and carries the signalling.
"use strict";

// Gathers as the trickle-ICE page does: one audio stream offered to nobody, one iceServers entry, every candidate and
// every error listed until gathering has ended.
async function gather(iceServer) {
  const connection = new RTCPeerConnection({ iceServers: [iceServer], iceTransportPolicy: "all", iceCandidatePoolSize: 0 });
  const candidates = [];
  const errors = [];
  const done = new Promise((resolve) => {
    connection.addEventListener("icecandidate", ({ candidate }) => {
      if (candidate === null) {
        resolve();
      } else if (candidate.candidate !== "") {
        const { type, protocol, address, port, relayProtocol, relatedAddress, relatedPort, url } = candidate;
        candidates.push({ type, protocol, address, port, relayProtocol, relatedAddress, relatedPort, url });
      }
    });
    connection.addEventListener("icecandidateerror", ({ errorCode, errorText, url, address, port }) => {
      errors.push({ errorCode, errorText, url, address, port });
    });
  });
  await connection.setLocalDescription(await connection.createOffer({ offerToReceiveAudio: true }));
  await done;
  connection.close();
  return { candidates, errors };
}

// One end of a call; `signal` sends a message to the other end.
class Call {
  constructor(iceServer, signal) {
    this.signal = signal;
    this.remoteCandidates = [];
    this.connection = new RTCPeerConnection({ iceServers: [iceServer], iceTransportPolicy: "relay" });
    this.connection.addEventListener("icecandidate", ({ candidate }) => signal({ candidate }));
    this.connection.addEventListener("track", ({ streams }) => {
      document.getElementById("remote").srcObject = streams[0];
    });
    // Negotiated in advance, so that both ends have it from the start.
    this.channel = this.connection.createDataChannel("file", { negotiated: true, id: 1 });
    this.channel.binaryType = "arraybuffer";
    this.opened = new Promise((resolve) => this.channel.addEventListener("open", resolve, { once: true }));
  }

  async start() {
    const stream = await navigator.mediaDevices.getUserMedia({
      audio: true,
      video: { width: 320, height: 240, frameRate: 15 },
    });
    for (const track of stream.getTracks()) {
      this.connection.addTrack(track, stream);
    }
  }

  async offer() {
    await this.connection.setLocalDescription(await this.connection.createOffer());
    this.signal({ description: this.connection.localDescription });
  }

  async receiveSignal({ description, candidate }) {
    if (description) {
      await this.connection.setRemoteDescription(description);
      for (const early of this.remoteCandidates.splice(0)) {
        await this.connection.addIceCandidate(early);
      }
      if (description.type === "offer") {
        await this.connection.setLocalDescription(await this.connection.createAnswer());
        this.signal({ description: this.connection.localDescription });
      }
    } else if (candidate) {
      if (this.connection.remoteDescription === null) {
        this.remoteCandidates.push(candidate);
      } else {
        await this.connection.addIceCandidate(candidate);
      }
    }
  }

  // The candidate pair in use.
  async selectedPair() {
    const stats = await this.connection.getStats();
    const transport = [...stats.values()].find((entry) => entry.type === "transport");
    const pair = stats.get(transport?.selectedCandidatePairId);
    if (!pair) {
      return null;
    }
    const end = ({ candidateType, address, port, protocol, relayProtocol, url }) => (
      { type: candidateType, address, port, protocol, relayProtocol, url }
    );
    const { state, bytesSent, bytesReceived, packetsSent, packetsReceived } = pair;
    return {
      state, bytesSent, bytesReceived, packetsSent, packetsReceived,
      bytesReceivedByAllPairs: transport.bytesReceived,
      local: end(stats.get(pair.localCandidateId)),
      remote: end(stats.get(pair.remoteCandidateId)),
    };
  }

  async framesDecoded() {
    const stats = await this.connection.getStats();
    const video = [...stats.values()].find((entry) => entry.type === "inbound-rtp" && entry.kind === "video");
    return video?.framesDecoded ?? 0;
  }

  // Sends `length` random bytes; returns their hash.
  async sendFile(length) {
    const chunk = 16 * 1024;
    const file = new Uint8Array(length);
    for (let start = 0; start < length; start += 65536) {
      crypto.getRandomValues(file.subarray(start, Math.min(start + 65536, length)));
    }
    this.channel.bufferedAmountLowThreshold = 16 * chunk;
    for (let start = 0; start < length; start += chunk) {
      if (this.channel.bufferedAmount > 64 * chunk) {
        await new Promise((resolve) => this.channel.addEventListener("bufferedamountlow", resolve, { once: true }));
      }
      this.channel.send(file.subarray(start, Math.min(start + chunk, length)));
    }
    return sha256(file);
  }

  // Starts to receive `length` bytes; `received` becomes their hash.
  expectFile(length) {
    const file = new Uint8Array(length);
    let filled = 0;
    this.received = new Promise((resolve, reject) => {
      this.channel.addEventListener("message", ({ data }) => {
        if (filled + data.byteLength > length) {
          reject(new Error(`more than ${length} bytes have arrived`));
          return;
        }
        file.set(new Uint8Array(data), filled);
        filled += data.byteLength;
        if (filled === length) {
          resolve(sha256(file));
        }
      });
    });
  }
}

async function sha256(bytes) {
  const hash = await crypto.subtle.digest("SHA-256", bytes);
  return [...new Uint8Array(hash)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
