/** Socket.IO as its pages advise for more than one server: Redis Streams adapter; WebSocket only, as ours. */
import { createServer } from 'node:http';
import { createAdapter } from '@socket.io/redis-streams-adapter';
import { Redis } from 'ioredis';
import { Server } from 'socket.io';
import { said } from './said.js';

const redis = new Redis(process.env.REDIS_URL);
const http = createServer();
const io = new Server(http, {
  transports: ['websocket'],
  adapter: createAdapter(redis, { streamName: 'peers:socket.io' }),
});
io.on('connection', (socket) => {
  const { name, room } = socket.handshake.auth;
  const from = { id: name, name };
  socket.on('say', (text) => io.to(room).emit('said', said(room, from, text)));
  socket.join(room);
  socket.emit('welcome');
});
http.listen(0, '127.0.0.1', () => process.send(http.address().port));
