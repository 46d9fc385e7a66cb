/** Colyseus: a room of 50 for each name, no state to synchronise, broadcast() to all. Its rooms live in one process. */
import { createServer } from 'node:http';
import { Room, Server } from '@colyseus/core';
import { WebSocketTransport } from '@colyseus/ws-transport';
import { said } from './said.js';

class Region extends Room {
  maxClients = Number(process.env.ROOM_SIZE);
  patchRate = null;

  onCreate({ room }) {
    this.onMessage('say', (client, text) => this.broadcast('said', said(room, client.userData, text)));
  }

  onJoin(client, { name }) {
    client.userData = { id: name, name };
  }
}

const http = createServer();
const server = new Server({ greet: false, transport: new WebSocketTransport({ server: http }) });
server.define('region', Region).filterBy(['room']);
await server.listen(0, '127.0.0.1');
process.send(http.address().port);
