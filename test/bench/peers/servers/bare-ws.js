/** The floor: `ws` and nothing else. Rooms in memory, JSON in, one send() to each member. */
import { once } from 'node:events';
import { WebSocketServer } from 'ws';
import { said } from './said.js';

const rooms = new Map();
const server = new WebSocketServer({ host: '127.0.0.1', port: 0, perMessageDeflate: false });
server.on('connection', (socket) => {
  let from = null;
  let room = null;
  socket.on('message', (raw) => {
    const message = JSON.parse(String(raw));
    if (message.t === 'hello') {
      from = { id: message.name, name: message.name };
      room = message.room;
      if (!rooms.has(room)) rooms.set(room, new Set());
      rooms.get(room).add(socket);
      socket.send(JSON.stringify({ t: 'welcome' }));
    } else if (message.t === 'say' && room !== null) {
      const text = JSON.stringify(said(room, from, message.text));
      for (const member of rooms.get(room)) member.send(text);
    }
  });
  socket.on('close', () => rooms.get(room)?.delete(socket));
});
await once(server, 'listening');
process.send(server.address().port);
