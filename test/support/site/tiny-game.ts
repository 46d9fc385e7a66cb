/**
 * A game server in one file without packages, for tests of what stands before it: any image with Node runs it. Speaks as
 * much of the wire protocol as a probing player needs: hello → welcome, everything else is echoed.
 */
export const tinyGame = String.raw`
const { createServer } = require('node:http');
const { createHash } = require('node:crypto');
const servedBy = process.env.GAMEOPS_RELEASE + '/' + process.env.GAMEOPS_REPLICA;
const [release, replica] = servedBy.split('/').map(Number);

const server = createServer((request, response) => {
  response.setHeader('x-gameops-served-by', servedBy);
  request.resume().on('end', () => {
    if (request.url === '/readyz') return response.end('ready');
    if (request.url === '/api/die') return request.socket.destroy();
    response.setHeader('content-type', 'application/json');
    response.end(JSON.stringify({ url: request.url, method: request.method, headers: request.headers }));
  });
});
server.keepAliveTimeout = 75000;

const frame = (text) => {
  const body = Buffer.from(text);
  const head = body.length < 126 ? [0x81, body.length] : [0x81, 126, body.length >> 8, body.length & 255];
  return Buffer.concat([Buffer.from(head), body]);
};

server.on('upgrade', (request, socket) => {
  const key = request.headers['sec-websocket-key'];
  const accept = createHash('sha1').update(key + '258EAFA5-E914-47DA-95CA-C5AB0DC85B11').digest('base64');
  socket.write('HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ' +
    accept + '\r\nSec-WebSocket-Protocol: gameops.v1\r\nx-gameops-served-by: ' + servedBy + '\r\n\r\n');
  socket.on('error', () => {});
  socket.on('data', (data) => {
    if ((data[0] & 15) === 8) return socket.end(Buffer.from([0x88, 0]));
    const long = (data[1] & 127) === 126;
    const length = long ? data.readUInt16BE(2) : data[1] & 127;
    const at = long ? 4 : 2;
    const mask = data.subarray(at, at + 4);
    const text = Buffer.from(data.subarray(at + 4, at + 4 + length).map((byte, i) => byte ^ mask[i & 3])).toString();
    const message = JSON.parse(text);
    if (message.t !== 'hello') return socket.write(frame(text));
    socket.write(frame(JSON.stringify({ t: 'welcome', session: 's', player: { id: 'p', name: 'p' },
      release, replica, heartbeatMs: 30000, rooms: ['lobby'] })));
  });
});
process.on('SIGTERM', () => process.exit(0));
server.listen(3000);
`;
