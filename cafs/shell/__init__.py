"""The store on disk and the service that moves content between peers; trio."""
